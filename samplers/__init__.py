"""Which rows of a dataset go into which batch: yield lists of row numbers, never touch text."""

from __future__ import annotations

from sparse_encoder.samplers.default import DefaultBatchSampler
from sparse_encoder.samplers.names import BatchSamplers, MultiDatasetBatchSamplers

__all__ = ["BatchSamplers", "DefaultBatchSampler", "MultiDatasetBatchSamplers"]
