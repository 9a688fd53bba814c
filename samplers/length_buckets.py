"""Batches of rows of like length, cut by a budget of tokens, so that little is padding and memory stays the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparse_encoder.samplers.columns import RowsByNumber
from sparse_encoder.samplers.default import DefaultBatchSampler
from sparse_encoder.samplers.randomness import shuffled

Row = Mapping[str, Any]  # texts, pairs of texts, labels


class LengthBucketBatchSampler(DefaultBatchSampler):
    """Sort a random order of the rows into buckets by length, cut these by a token budget, and shuffle the batches.

    A batch costs its rows times its longest row, lengths rounded up to the bucket's; it gets as many rows as the budget
    allows, at most ``batch_size``. Within a bucket the order is random. All epochs have the same number of batches.

    Give it to the trainer as ``batch_sampler=functools.partial(LengthBucketBatchSampler, max_tokens=8192,
    lengths=count_tokens)``. Its ``batch_size`` attribute is ``None``, which tells accelerate that batches differ.

    Args:
        dataset: A ``datasets.Dataset``, or anything with a length and rows, dicts, by number.
        batch_size: Most rows of a batch.
        drop_last: Leave out the last batch to be filled, of the shortest rows, if it has room left.
        valid_label_columns: Names a label column may have; the rows that ``lengths`` is called with lack them.
        generator: Tells the device to draw on; ``None`` is the CPU. Its state is neither read nor changed.
        seed: Of epoch 0.
        max_tokens: Most tokens of a batch, padding included.
        lengths: The tokens of each row, or a function that counts them in a row, which is called once per row.
        bucket_width: Lengths are rounded up to multiples of this, in tokens.

    Raises:
        TypeError: If ``seed`` is not an integer.
        ValueError: If ``batch_size``, ``max_tokens`` or ``bucket_width`` is not a positive integer; if there are not as
            many lengths as rows, one is negative or not whole, or one is over the budget.
    """

    def __init__(  # house: peer signature
        self,
        dataset: RowsByNumber,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
        *,
        max_tokens: int,
        lengths: Sequence[int] | Callable[[Row], int],
        bucket_width: int = 16,
    ) -> None:
        super().__init__(dataset, batch_size, drop_last, valid_label_columns, generator, seed)
        for name, value in (("max_tokens", max_tokens), ("bucket_width", bucket_width)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        self.max_tokens = max_tokens
        self.max_rows = batch_size
        self.batch_size = None  # type: ignore[assignment]  # what accelerate looks for where batches differ in size
        self._lengths = self._padded(dataset, lengths, bucket_width)  # (N,)
        self._stops = self._cut(np.sort(self._lengths)[::-1].tolist())

    def __len__(self) -> int:
        """Count the batches of a pass: the same in every epoch."""
        return len(self._stops)

    def draw(self, generator: torch.Generator, epoch: int) -> Iterator[list[int]]:
        """Yield the batches of a pass, longest rows first in the cutting, batches in random order."""
        order = np.array(shuffled(len(self._lengths), generator), dtype=np.int64)
        order = order[np.argsort(-self._lengths[order], kind="stable")]
        starts = [0, *self._stops]
        for number in shuffled(len(self._stops), generator):
            batch: list[int] = order[starts[number] : self._stops[number]].tolist()
            yield batch

    def _padded(
        self, dataset: RowsByNumber, lengths: Sequence[int] | Callable[[Row], int], bucket_width: int
    ) -> NDArray[np.int64]:
        """Return the checked lengths, rounded up, none above the budget."""
        if callable(lengths):
            labels = self.valid_label_columns or ()
            rows = (dataset[number] for number in range(len(dataset)))
            lengths = [lengths({name: value for name, value in row.items() if name not in labels}) for row in rows]
        counted = _whole_numbers(lengths)
        if len(counted) != len(dataset):
            raise ValueError(f"every row needs a length, got {len(counted)} lengths for {len(dataset)} rows")
        for row in np.flatnonzero((counted < 0) | (counted > self.max_tokens))[:1].tolist():
            raise ValueError(
                f"row {row} has {counted[row]} tokens; it must be between 0 and max_tokens={self.max_tokens}"
            )
        padded = -(-np.maximum(counted.astype(np.int64), 1) // bucket_width) * bucket_width
        bounded: NDArray[np.int64] = np.minimum(padded, self.max_tokens)
        return bounded

    def _cut(self, descending: list[int]) -> list[int]:
        """Return where batches end in rows that come longest first."""
        stops: list[int] = []
        start = 0
        while start < len(descending):
            room = min(self.max_rows, self.max_tokens // descending[start])
            stop = min(start + room, len(descending))
            if stop - start == room or not self.drop_last:
                stops.append(stop)
            start = stop
        return stops


def _whole_numbers(lengths: Sequence[object]) -> NDArray[np.int64]:
    """Return lengths as (N,), and refuse the first that is no whole number, as a row of a table is none."""
    values: list[object] = lengths.tolist() if hasattr(lengths, "tolist") else list(lengths)
    for row, value in enumerate(values):
        if type(value) is not int and (isinstance(value, bool) or not isinstance(value, Integral)):
            raise ValueError(f"lengths must be whole numbers, one for each row; row {row} has {value!r}")
    return np.array(values, dtype=np.int64)
