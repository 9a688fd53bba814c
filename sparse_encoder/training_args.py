"""Training arguments and the names of samplers, where scripts for sentence-transformers import them from."""

from __future__ import annotations

from sparse_encoder.samplers import BatchSamplers, MultiDatasetBatchSamplers
from sparse_encoder.training import SparseEncoderTrainingArguments

__all__ = ["BatchSamplers", "MultiDatasetBatchSamplers", "SparseEncoderTrainingArguments"]
