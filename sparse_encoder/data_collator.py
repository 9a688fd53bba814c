"""The data collator, where scripts for sentence-transformers import it from."""

from __future__ import annotations

from sparse_encoder.training import SparseEncoderDataCollator

__all__ = ["SparseEncoderDataCollator"]
