"""The samplers, where scripts for sentence-transformers 6 import them from."""

from __future__ import annotations

from sparse_encoder.samplers import BatchSamplers, DefaultBatchSampler, MultiDatasetBatchSamplers

__all__ = ["BatchSamplers", "DefaultBatchSampler", "MultiDatasetBatchSamplers"]
