"""Models as ONNX graphs. Knows nothing of training."""

from __future__ import annotations

from sparse_encoder.export.errors import ExportError, OutputMismatchError
from sparse_encoder.export.exporting import export_onnx
from sparse_encoder.export.report import ExportReport

__all__ = [
    "ExportError",
    "ExportReport",
    "OutputMismatchError",
    "export_onnx",
]
