"""The names of samplers, where scripts for sentence-transformers 6 import them from."""

from __future__ import annotations

from sparse_encoder.samplers import BatchSamplers, MultiDatasetBatchSamplers

__all__ = ["BatchSamplers", "MultiDatasetBatchSamplers"]
