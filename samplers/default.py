"""Batches of rows in a random order that depends on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import BatchSampler


class DefaultBatchSampler(BatchSampler):
    """Cut a random order of the rows into batches.

    Epoch e visits ``torch.randperm(N, generator=torch.Generator().manual_seed(seed + e))``: the order that the peer's
    trainer has. Unlike the peer's, the sampler draws this order itself and has no state but the epoch.

    Args:
        dataset: Anything with a length; its rows are not read.
        batch_size: Rows of a batch.
        drop_last: Leave out a last batch that is not full.
        valid_label_columns: Names a label column may have; for subclasses that group by label.
        generator: Draws the order, on its own device, after it was seeded with ``seed + epoch``; ``None`` takes a new
            one on the CPU.
        seed: Of epoch 0.

    Raises:
        ValueError: If ``batch_size`` is not a positive integer or ``drop_last`` not a boolean.
    """

    def __init__(
        self,
        dataset: Sized,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(range(len(dataset)), batch_size=batch_size, drop_last=drop_last)
        self.dataset = dataset
        self.valid_label_columns = valid_label_columns
        self.generator = generator
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the row numbers of each batch of the current epoch."""
        generator = torch.Generator() if self.generator is None else self.generator
        generator.manual_seed(self.seed + self.epoch)
        rows: list[int] = torch.randperm(len(self.dataset), generator=generator, device=generator.device).tolist()
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield rows[start : start + self.batch_size]
