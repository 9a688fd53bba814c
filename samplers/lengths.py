"""How many batches the epochs of a run have, where epochs differ."""

from __future__ import annotations

from torch.utils.data import BatchSampler

from sparse_encoder.samplers.default import DefaultBatchSampler
from sparse_encoder.samplers.multi_dataset import MultiDatasetDefaultBatchSampler


def epoch_lengths(batch_sampler: BatchSampler, num_epochs: int) -> list[int]:
    """Return the number of batches of each epoch from 0 on; exact, and known before the first.

    Where passes differ, as without duplicates, that takes a pass over the row numbers for each epoch
    (``python examples/benchmarks/samplers.py --passes`` says how long). The sampler is left at its
    epoch.
    """
    if not isinstance(batch_sampler, DefaultBatchSampler | MultiDatasetDefaultBatchSampler) or not (
        batch_sampler.length_varies
    ):
        return [len(batch_sampler)] * num_epochs
    before = batch_sampler.epoch
    lengths = []
    for epoch in range(num_epochs):
        batch_sampler.set_epoch(epoch)
        lengths.append(len(batch_sampler))
    batch_sampler.set_epoch(before)
    return lengths
