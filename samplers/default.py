"""Batches of rows in a random order that depends on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import ClassVar

import torch
from torch.utils.data import BatchSampler, Sampler

from sparse_encoder.samplers.randomness import check_epoch, new_generator, shuffled


class DefaultBatchSampler(BatchSampler):
    """Cut a random order of the rows into batches.

    Epoch e visits ``torch.randperm(N, generator=torch.Generator().manual_seed(seed + e))``: the order that the peer's
    trainer has. Unlike the peer's, the sampler draws this order itself, from a generator that lives for one pass, and
    has no state but the epoch: two passes at once do not disturb each other.

    A subclass defines :meth:`draw`, and then also shares a generator with others inside a sampler of several datasets;
    or it overrides ``__iter__`` and draws as it likes.

    Args:
        dataset: Anything with a length; its rows are not read.
        batch_size: Rows of a batch.
        drop_last: Leave out a last batch that is not full.
        valid_label_columns: Names a label column may have; for subclasses that group by label.
        generator: Tells the device to draw on; ``None`` is the CPU. Its state is neither read nor changed, since the
            peer too seeds it anew for each pass.
        seed: Of epoch 0.

    Raises:
        TypeError: If ``seed`` is not an integer, or a sampler takes the place of the dataset.
        ValueError: If ``batch_size`` is not a positive integer or ``drop_last`` not a boolean.
    """

    length_varies: ClassVar[bool] = False
    """Whether passes differ in their number of batches."""

    def __init__(
        self,
        dataset: Sized,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        if isinstance(dataset, Sampler):
            raise TypeError(f"{type(self).__name__} draws the order itself; give the dataset, not {dataset!r}")
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise TypeError(f"seed must be an integer, got {seed!r}")
        super().__init__(range(len(dataset)), batch_size=batch_size, drop_last=drop_last)
        self.dataset = dataset
        self.valid_label_columns = valid_label_columns
        self.generator = generator
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass, by an integer; those that have begun keep theirs."""
        self.epoch = check_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the row numbers of each batch of the current epoch."""
        return self.draw(new_generator(self.seed + self.epoch, self.generator), self.epoch)

    @property
    def planned_length(self) -> int:
        """The batches of a pass, as a sampler of several datasets plans with them: here, all of them."""
        return len(self)

    def draw(self, generator: torch.Generator, epoch: int) -> Iterator[list[int]]:
        """Yield the batches of a pass, drawing when a batch is asked for, as the peer does.

        Args:
            generator: Alone in use, or shared with the samplers of other datasets: then the order of the draws decides
                about the batches of all.
            epoch: Of the pass; for subclasses that seed the generator.
        """
        rows = shuffled(len(self.dataset), generator)
        stop = len(rows) - len(rows) % self.batch_size
        for start in range(0, stop, self.batch_size):
            yield rows[start : start + self.batch_size]
        if stop < len(rows) and not self.drop_last:
            shuffled(len(rows), generator)  # torch's RandomSampler draws once more at its end: others draw after that
            yield rows[stop:]


def draws_with_others(sampler: object) -> bool:
    """Return whether a sampler has a :meth:`DefaultBatchSampler.draw` that stands for its ``__iter__``."""
    return isinstance(sampler, DefaultBatchSampler) and type(sampler).__iter__ is DefaultBatchSampler.__iter__
