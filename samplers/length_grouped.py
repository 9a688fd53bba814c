"""Batches of rows of similar length, still drawn from the whole dataset; the longest row comes first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized

import torch

from sparse_encoder.samplers.default import DefaultBatchSampler
from sparse_encoder.samplers.randomness import shuffled

_MOST_BATCHES, _FEWEST_POOLS = 50, 4


class LengthGroupedBatchSampler(DefaultBatchSampler):
    """Shuffle the rows, cut them into pools of some batches, and sort each pool by length.

    A pool has 50 batches, fewer if there would be less than 4 pools. The longest row of all changes places with the
    first one, so that a lack of memory shows at once. The order is that of transformers' ``group_by_length``.

    Args:
        dataset: Anything with a length; its rows are not read.
        batch_size: Rows of a batch.
        drop_last: Leave out a last batch that is not full.
        valid_label_columns: As every sampler's; lengths have nothing to do with labels.
        generator: Tells the device to draw on; ``None`` is the CPU.
        seed: Of epoch 0.
        lengths: Of each row, in tokens or anything else.

    Raises:
        ValueError: If there are not as many lengths as rows.
    """

    def __init__(  # house: peer signature
        self,
        dataset: Sized,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
        *,
        lengths: Sequence[int],
    ) -> None:
        super().__init__(dataset, batch_size, drop_last, valid_label_columns, generator, seed)
        if len(lengths) != len(dataset):
            raise ValueError(f"lengths must be as many as rows, got {len(lengths)} for {len(dataset)}")
        self.lengths = list(lengths)

    def draw(self, generator: torch.Generator, epoch: int) -> Iterator[list[int]]:
        """Yield the batches of a pass."""
        rows = self._order(shuffled(len(self.dataset), generator))
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield rows[start : start + self.batch_size]

    def _order(self, rows: list[int]) -> list[int]:
        """Sort pools of shuffled rows by length, and put the longest row first."""
        if not rows:
            return rows
        batches = max(1, min(len(rows) // (self.batch_size * _FEWEST_POOLS), _MOST_BATCHES))
        size = batches * self.batch_size
        pools = [rows[start : start + size] for start in range(0, len(rows), size)]
        for pool in pools:
            pool.sort(key=lambda row: -self.lengths[row])
        longest = max(pools, key=lambda pool: self.lengths[pool[0]])
        pools[0][0], longest[0] = longest[0], pools[0][0]
        return [row for pool in pools for row in pool]
