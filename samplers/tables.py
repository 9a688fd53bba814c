"""From the name of a sampler to its class."""

from __future__ import annotations

from sparse_encoder.samplers.default import DefaultBatchSampler
from sparse_encoder.samplers.group_by_label import GroupByLabelBatchSampler
from sparse_encoder.samplers.multi_dataset import (
    MultiDatasetDefaultBatchSampler,
    ProportionalBatchSampler,
    RoundRobinBatchSampler,
)
from sparse_encoder.samplers.names import BatchSamplers, MultiDatasetBatchSamplers
from sparse_encoder.samplers.no_duplicates import NoDuplicatesBatchSampler

BATCH_SAMPLERS: dict[BatchSamplers, type[DefaultBatchSampler]] = {
    BatchSamplers.BATCH_SAMPLER: DefaultBatchSampler,
    BatchSamplers.NO_DUPLICATES: NoDuplicatesBatchSampler,
    BatchSamplers.NO_DUPLICATES_HASHED: NoDuplicatesBatchSampler,
    BatchSamplers.GROUP_BY_LABEL: GroupByLabelBatchSampler,
}
"""Called as the peer's are: ``(dataset, batch_size, drop_last, valid_label_columns, generator, seed)``."""

MULTI_DATASET_BATCH_SAMPLERS: dict[MultiDatasetBatchSamplers, type[MultiDatasetDefaultBatchSampler]] = {
    MultiDatasetBatchSamplers.ROUND_ROBIN: RoundRobinBatchSampler,
    MultiDatasetBatchSamplers.PROPORTIONAL: ProportionalBatchSampler,
}
"""Called as the peer's are: ``(dataset, batch_samplers, generator, seed)``."""
