"""Files and named tensors: reading strictly, writing whole, translating names. Knows no model.

What handles tensors is loaded on first use (PEP 562): whoever only reads JSON does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

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
from sparse_encoder.checkpoint.sizes import size_in_bytes
from sparse_encoder.checkpoint.weight_names import WeightNames, set_of

if TYPE_CHECKING:
    from sparse_encoder.checkpoint.reading import WeightFiles, open_weights, read_tensors
    from sparse_encoder.checkpoint.safetensors_file import read_safetensors
    from sparse_encoder.checkpoint.writing import MAX_SHARD_SIZE, write_safetensors, write_tensors, write_torch_tensors

_WITH_TORCH = {
    "MAX_SHARD_SIZE": "writing",
    "WeightFiles": "reading",
    "open_weights": "reading",
    "read_safetensors": "safetensors_file",
    "read_tensors": "reading",
    "write_safetensors": "writing",
    "write_tensors": "writing",
    "write_torch_tensors": "writing",
}

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


def __getattr__(name: str) -> object:
    """Import what handles tensors the first time it is asked for."""
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
    globals()[name] = value
    return value
