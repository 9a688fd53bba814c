"""Sparse encoders on onnxruntime, without torch: texts in, rows of term weights out; and graphs in 8 bits."""

from __future__ import annotations

from sparse_encoder.serving.encoder import OnnxSparseEncoder
from sparse_encoder.serving.optimization import export_optimized_onnx_model
from sparse_encoder.serving.quality import QuantizationReport
from sparse_encoder.serving.quantization import export_dynamic_quantized_onnx_model, quantize_onnx

__all__ = [
    "OnnxSparseEncoder",
    "QuantizationReport",
    "export_dynamic_quantized_onnx_model",
    "export_optimized_onnx_model",
    "quantize_onnx",
]
