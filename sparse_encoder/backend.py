"""Functions for models on onnxruntime, where scripts for sentence-transformers import them from."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparse_encoder.serving.optimization import export_optimized_onnx_model
    from sparse_encoder.serving.quantization import export_dynamic_quantized_onnx_model

__all__ = ["export_dynamic_quantized_onnx_model", "export_optimized_onnx_model"]

_HOMES = {
    "export_dynamic_quantized_onnx_model": "sparse_encoder.serving.quantization",
    "export_optimized_onnx_model": "sparse_encoder.serving.optimization",
}
_INSTEAD = {
    "export_static_quantized_openvino_model": "there is no OpenVINO backend; export_dynamic_quantized_onnx_model "
    "writes graphs in 8 bits for onnxruntime, which has an OpenVINO provider",
}
"""What the peer has and this library does another way."""


def __getattr__(name: str) -> object:
    """Import the function when it is first asked for; tell what takes the place of the others."""
    if name in _INSTEAD:
        raise ImportError(f"{name} is not in this library: {_INSTEAD[name]}")  # `from ... import` shows no other error
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; choose from {__all__}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
