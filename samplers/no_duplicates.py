"""Batches in which no value occurs twice, for losses that take the other rows of a batch as negatives."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sparse_encoder.samplers.columns import RowsByNumber
from sparse_encoder.samplers.default import DefaultBatchSampler
from sparse_encoder.samplers.first_fit import first_fit
from sparse_encoder.samplers.row_hashes import hash_rows

logger = logging.getLogger(__name__)

_NOT_VALUES = ("dataset_name",)
_EXTRA_PASSES = 2


class _Pass(NamedTuple):
    """The batches of one order of the rows."""

    rows: NDArray[np.integer]
    """Row numbers, batch after batch."""
    stops: list[int]
    """Where each batch ends."""


class NoDuplicatesBatchSampler(DefaultBatchSampler):
    """Put every row of a random order into the first batch that has room and holds none of its values.

    Values are compared as their ``str``, across all columns but label columns and ``dataset_name``; lists as a whole.
    The batches are the peer's. Unlike the peer, this sampler always compares 64-bit hashes (xxh3) that are made once,
    so that a pass takes time in proportion to the rows, however many are duplicates; and its length is exact for the
    current epoch, where the peer's is the estimate of :attr:`planned_length`.

    With ``drop_last``, a pass can give fewer batches than planned. Then, as in the peer, up to two more orders are
    drawn until the number is reached, which repeats rows, with a warning.

    Args:
        dataset: A ``datasets.Dataset``, or anything with a length and rows, dicts, by number.
        batch_size: Most rows of a batch.
        drop_last: Leave out all batches that are not full.
        valid_label_columns: Columns whose values may occur as often as they like.
        generator: Tells the device to draw on; ``None`` is the CPU. Its state is neither read nor changed.
        seed: Of epoch 0.
        precompute_hashes: Hash the rows now, not before the first pass. The batches are the same.
        precompute_num_proc: Processes that hash, by ``datasets.Dataset.map``; ``None`` is one. What hashing and a
            pass cost: ``python examples/benchmarks/samplers.py --rows 1000000 --passes``.
        precompute_batch_size: Rows that are read at a time.

    Raises:
        TypeError: If ``seed`` is not an integer, or a sampler takes the place of the dataset.
        ValueError: If ``batch_size``, ``precompute_num_proc`` or ``precompute_batch_size`` is not a positive integer,
            rows differ in their columns, or several processes shall read what is no ``datasets.Dataset``.
    """

    length_varies = True

    def __init__(  # house: peer signature
        self,
        dataset: RowsByNumber,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
        precompute_hashes: bool = False,
        precompute_num_proc: int | None = None,
        precompute_batch_size: int = 1000,
    ) -> None:
        super().__init__(dataset, batch_size, drop_last, valid_label_columns, generator, seed)
        for name, number in (
            ("precompute_num_proc", 1 if precompute_num_proc is None else precompute_num_proc),
            ("precompute_batch_size", precompute_batch_size),
        ):
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ValueError(f"{name} must be a positive integer, got {number!r}")
        self._rows = dataset
        self.precompute_hashes = precompute_hashes
        self.precompute_num_proc = precompute_num_proc
        self.precompute_batch_size = precompute_batch_size
        self._numbered: tuple[NDArray[np.integer], int] | None = None
        self._last_pass: tuple[int, _Pass] | None = None
        self._last_length: tuple[int, int] | None = None
        self._warned: set[str] = set()
        if precompute_hashes:
            self._values()

    def __len__(self) -> int:
        """Count the batches of the current epoch, exactly; the first call for an epoch goes through its rows."""
        if self._last_length is None or self._last_length[0] != self.epoch:
            self._last_length = self.epoch, sum(1 for _ in self)
        return self._last_length[1]

    @property
    def planned_length(self) -> int:
        """The peer's ``len``: what no duplicates at all would give."""
        return len(self._rows) // self.batch_size if self.drop_last else -(-len(self._rows) // self.batch_size)

    def draw(self, generator: torch.Generator, epoch: int) -> Iterator[list[int]]:
        """Yield the batches of a pass, from a generator that is seeded for the epoch first, as the peer's is."""
        generator.manual_seed(self.seed + epoch)
        if not len(self._rows):
            return
        planned, given = self.planned_length, 0
        for number in range(1 + _EXTRA_PASSES):
            for batch in self._first_pass(generator) if number == 0 else _batches(self._pass(generator)):
                yield batch
                given += 1
                if number and given == planned:
                    return
            if given >= planned or not given:
                break
            if number == 0:
                self._warn(given, "rows are repeated to reach that number")
        if given < planned:
            self._warn(given, "the dataset has too few distinct values for this batch size; lower it")

    def _first_pass(self, generator: torch.Generator) -> Iterator[list[int]]:
        """Return the batches of the order that a freshly seeded generator draws, which is kept for the next time."""
        seed = generator.initial_seed()
        if self._last_pass is None or self._last_pass[0] != seed:
            self._last_pass = seed, self._pass(generator)
        else:
            self._order(generator)
        return _batches(self._last_pass[1])

    def _order(self, generator: torch.Generator) -> NDArray[np.integer]:
        """Draw an order of the rows."""
        count = len(self._rows)
        dtype = torch.int32 if count <= torch.iinfo(torch.int32).max else torch.int64
        order: NDArray[np.integer] = torch.randperm(
            count, generator=generator, dtype=dtype, device=generator.device
        ).numpy(force=True)
        return order

    def _pass(self, generator: torch.Generator) -> _Pass:
        """Draw an order and put its rows into batches."""
        order = self._order(generator)
        values, num_values = self._values()
        batches = first_fit(values[order], num_values, self.batch_size)
        sizes = np.bincount(batches)
        if self.drop_last:
            full = sizes == self.batch_size
            kept = full[batches]
            order, batches, sizes = order[kept], batches[kept], sizes[full]
        return _Pass(order[np.argsort(batches, kind="stable")], np.cumsum(sizes).tolist())

    def _values(self) -> tuple[NDArray[np.integer], int]:
        """Number the distinct values; returns the numbers, (rows, columns), and how many there are."""
        if self._numbered is None:
            hashes = hash_rows(
                self._rows,
                exclude={*_NOT_VALUES, *(self.valid_label_columns or ())},
                batch_size=self.precompute_batch_size,
                num_proc=self.precompute_num_proc or 1,
            )
            distinct, numbers = torch.unique(
                torch.from_numpy(hashes), return_inverse=True
            )  # 7 times as fast as numpy's
            dtype = np.int32 if len(distinct) <= np.iinfo(np.int32).max else np.int64
            self._numbered = numbers.numpy().astype(dtype), len(distinct)
        return self._numbered

    def _warn(self, given: int, meaning: str) -> None:
        """Say once per kind that a pass is short."""
        if meaning not in self._warned:
            self._warned.add(meaning)
            logger.warning(
                "no_duplicates found %d of the %d batches planned in a pass over the rows; %s",
                given,
                self.planned_length,
                meaning,
            )


def _batches(drawn: _Pass) -> Iterator[list[int]]:
    """Yield the batches of a pass."""
    start = 0
    for stop in drawn.stops:
        batch: list[int] = drawn.rows[start:stop].tolist()
        yield batch
        start = stop
