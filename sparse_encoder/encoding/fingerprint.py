"""One hash for everything that decides a model's vectors, so that an index can refuse another model's queries."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from sparse_encoder.backbone import PretrainedModel
from sparse_encoder.backbone.adapters.names import is_adapters_own
from sparse_encoder.modules import Module
from sparse_encoder.tokenizer import Tokenizer

_LEFT_OUT = ("chunk_size", "unpad_inputs", "max_seq_length", "query_length", "document_length", "embedding_dimension")
"""Settings that say how vectors are computed, where texts are cut, or what is learnt from the first vector."""
_LATER: dict[str, object] = {
    "attention_output_bias": None,
    "attention_scale": None,
    "bidirectional": True,
    "causal": False,
    "cross_attention": False,
    "decoder": None,
    "embedding_norm": True,
    "embedding_scale": 1.0,
    "final_dropout": 0.0,
    "first_position": 0,
    "guards_float16": False,
    "head_kind": "masked_language",
    "head_scale": 1.0,
    "head_width": None,
    "initializer_by_width": False,
    "layer_dropout": 0.0,
    "logits_bias": False,
    "norm_kind": "layer",
    "num_kv_heads": None,
    "own_words": True,
    "pad_row_is_zero": True,
    "published": {},
    "query_key_norm": False,
    "rotary_scaling": None,
}
"""Options that configurations did not have at first, and what they are where a model does not use them: then they are
left out, so that the hash of a model, and with it the indexes of its vectors, outlive them."""


def fingerprint_of(model: nn.Module) -> str:
    """Hash tokenizers, settings and weights of modules.

    Args:
        model: The modules; where they are and whether they train makes no difference.

    Returns:
        SHA-256 in hex.
    """
    digest = hashlib.sha256()
    for name, module in sorted((name, each) for name, each in model.named_modules() if not is_adapters_own(name)):
        digest.update(json.dumps([name, _settings(module)], sort_keys=True, default=str).encode())
    for name, tensor in sorted(_tensors(model).items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(model: nn.Module) -> dict[str, object]:
    """Return what a model computes with: of its adapters only those that are active, whatever they are called."""
    tensors: dict[str, object] = dict(model.state_dict())
    for path, module in model.named_modules():
        if isinstance(module, PretrainedModel) and module.has_adapters:
            prefix = f"{path}." if path else ""
            tensors = {name: each for name, each in tensors.items() if not name.startswith(prefix)}
            tensors |= {f"{prefix}{name}": each for name, each in module.tensors_in_use().items()}
    return tensors


def _settings(module: nn.Module) -> dict[str, object]:
    """Return what a module was told, and the hash of its tokenizer; nothing for the inner parts of modules."""
    if isinstance(module, PretrainedModel):
        return _as_at_first(asdict(replace(module.config, published={})))
    if not isinstance(module, Module):
        return {}
    settings = {key: value for key, value in module.get_config_dict().items() if key not in _LEFT_OUT}
    tokenizer = getattr(module, "tokenizer", None)
    fingerprint = tokenizer.fingerprint if isinstance(tokenizer, Tokenizer) else None
    return {"type": type(module).__name__, "settings": settings, "tokenizer": fingerprint}


def _as_at_first(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out later options that are not used, also of the parts of a configuration."""
    return {
        name: _as_at_first(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if name not in _LATER or value != _LATER[name]
    }
