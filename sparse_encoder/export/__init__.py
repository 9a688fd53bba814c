"""Models as ONNX graphs. Knows nothing of training."""

from __future__ import annotations

from sparse_encoder.export.documented import export, validate_model_outputs
from sparse_encoder.export.errors import ExportError, OutputMismatchError
from sparse_encoder.export.exporting import export_onnx
from sparse_encoder.export.family_configs import DecoderOnnxConfig, EncoderDecoderOnnxConfig, EncoderOnnxConfig
from sparse_encoder.export.features import FeaturesManager
from sparse_encoder.export.onnx_config import OnnxConfig
from sparse_encoder.export.onnx_config_seq2seq import OnnxSeq2SeqConfigWithPast
from sparse_encoder.export.onnx_config_with_past import OnnxConfigWithPast
from sparse_encoder.export.patching import PatchingSpec
from sparse_encoder.export.report import ExportReport
from sparse_encoder.export.utils import (
    EXTERNAL_DATA_FORMAT_SIZE_LIMIT,
    ParameterFormat,
    compute_serialized_parameters_size,
)

__all__ = [
    "EXTERNAL_DATA_FORMAT_SIZE_LIMIT",
    "DecoderOnnxConfig",
    "EncoderDecoderOnnxConfig",
    "EncoderOnnxConfig",
    "ExportError",
    "ExportReport",
    "FeaturesManager",
    "OnnxConfig",
    "OnnxConfigWithPast",
    "OnnxSeq2SeqConfigWithPast",
    "OutputMismatchError",
    "ParameterFormat",
    "PatchingSpec",
    "compute_serialized_parameters_size",
    "export",
    "export_onnx",
    "validate_model_outputs",
]
