"""Files and named tensors: reading strictly, writing whole, translating names. Knows no model."""

from __future__ import annotations

from sparse_encoder.checkpoint.atomic import staged_folder, write_bytes, write_json, write_text
from sparse_encoder.checkpoint.errors import (
    BackendError,
    CheckpointError,
    ConfigError,
    IndexCorruptError,
    LoadError,
    SparseEncoderError,
    TokenizerError,
)
from sparse_encoder.checkpoint.folder_lock import folder_lock, read_settled
from sparse_encoder.checkpoint.hub import fetch_model_folder
from sparse_encoder.checkpoint.json_files import parse_json, read_json, read_json_object
from sparse_encoder.checkpoint.key_table import KeyTable, canonical_names
from sparse_encoder.checkpoint.paths import open_regular, read_limited, resolve_inside
from sparse_encoder.checkpoint.reading import WeightFiles, open_weights, read_tensors
from sparse_encoder.checkpoint.safetensors_file import read_safetensors
from sparse_encoder.checkpoint.sizes import size_in_bytes
from sparse_encoder.checkpoint.weight_names import WeightNames, set_of
from sparse_encoder.checkpoint.writing import MAX_SHARD_SIZE, write_safetensors, write_tensors, write_torch_tensors

__all__ = [
    "MAX_SHARD_SIZE",
    "BackendError",
    "CheckpointError",
    "ConfigError",
    "IndexCorruptError",
    "KeyTable",
    "LoadError",
    "SparseEncoderError",
    "TokenizerError",
    "WeightFiles",
    "WeightNames",
    "canonical_names",
    "fetch_model_folder",
    "folder_lock",
    "open_regular",
    "open_weights",
    "parse_json",
    "read_json",
    "read_json_object",
    "read_limited",
    "read_safetensors",
    "read_settled",
    "read_tensors",
    "resolve_inside",
    "set_of",
    "size_in_bytes",
    "staged_folder",
    "write_bytes",
    "write_json",
    "write_safetensors",
    "write_tensors",
    "write_text",
    "write_torch_tensors",
]
