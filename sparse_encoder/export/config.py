"""The configurations of graphs under the name of the module that scripts for transformers import them from."""

from __future__ import annotations

from sparse_encoder.checkpoint.graph_names import DEFAULT_OPSET as DEFAULT_ONNX_OPSET
from sparse_encoder.export.onnx_config import OnnxConfig
from sparse_encoder.export.onnx_config_seq2seq import OnnxSeq2SeqConfigWithPast
from sparse_encoder.export.onnx_config_with_past import OnnxConfigWithPast
from sparse_encoder.export.patching import PatchingSpec
from sparse_encoder.export.utils import EXTERNAL_DATA_FORMAT_SIZE_LIMIT

__all__ = [
    "DEFAULT_ONNX_OPSET",
    "EXTERNAL_DATA_FORMAT_SIZE_LIMIT",
    "OnnxConfig",
    "OnnxConfigWithPast",
    "OnnxSeq2SeqConfigWithPast",
    "PatchingSpec",
]
