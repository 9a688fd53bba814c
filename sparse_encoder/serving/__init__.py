"""Sparse encoders on onnxruntime, without torch: texts in, rows of term weights out; and graphs in 8 bits."""

from __future__ import annotations

from sparse_encoder.serving.encoder import OnnxSparseEncoder

__all__ = ["OnnxSparseEncoder"]
