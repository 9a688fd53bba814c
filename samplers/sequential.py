"""Batches of rows in their order."""

from __future__ import annotations

from collections.abc import Iterator

from sparse_encoder.samplers.default import DefaultBatchSampler


class SequentialBatchSampler(DefaultBatchSampler):
    """Cut the rows, in the order of the dataset, into batches; every epoch is the same.

    Args:
        dataset: Anything with a length; its rows are not read.
        batch_size: Rows of a batch.
        drop_last: Leave out a last batch that is not full.
        valid_label_columns: As every sampler's; not needed for an order that is given.
        generator: Likewise.
        seed: Likewise.
    """

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the row numbers of each batch."""
        rows = range(len(self.dataset))
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield list(rows[start : start + self.batch_size])
