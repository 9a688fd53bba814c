"""The trainer, where scripts for sentence-transformers import it from."""

from __future__ import annotations

from sparse_encoder.training import SparseEncoderTrainer

__all__ = ["SparseEncoderTrainer"]
