"""Which rows of a dataset go into which batch: yield lists of row numbers, never touch text."""

from __future__ import annotations

from sparse_encoder.samplers.default import DefaultBatchSampler
from sparse_encoder.samplers.group_by_label import GroupByLabelBatchSampler
from sparse_encoder.samplers.length_buckets import LengthBucketBatchSampler
from sparse_encoder.samplers.lengths import epoch_lengths
from sparse_encoder.samplers.mixing import CappedProportionalBatchSampler, TemperatureBatchSampler
from sparse_encoder.samplers.multi_dataset import (
    MultiDatasetDefaultBatchSampler,
    ProportionalBatchSampler,
    RoundRobinBatchSampler,
)
from sparse_encoder.samplers.names import BatchSamplers, MultiDatasetBatchSamplers
from sparse_encoder.samplers.no_duplicates import NoDuplicatesBatchSampler
from sparse_encoder.samplers.tables import BATCH_SAMPLERS, MULTI_DATASET_BATCH_SAMPLERS

__all__ = [
    "BATCH_SAMPLERS",
    "MULTI_DATASET_BATCH_SAMPLERS",
    "BatchSamplers",
    "CappedProportionalBatchSampler",
    "DefaultBatchSampler",
    "GroupByLabelBatchSampler",
    "LengthBucketBatchSampler",
    "MultiDatasetBatchSamplers",
    "MultiDatasetDefaultBatchSampler",
    "NoDuplicatesBatchSampler",
    "ProportionalBatchSampler",
    "RoundRobinBatchSampler",
    "TemperatureBatchSampler",
    "epoch_lengths",
]
