"""Mistral: Llama whose layers see only the last tokens."""

from __future__ import annotations

from dataclasses import replace

from sparse_encoder.backbone.families.llama import LLAMA, LLAMA_DEFAULTS, LLAMA_KEYS
from sparse_encoder.backbone.families.windows import read_mistral

MISTRAL = replace(
    LLAMA,
    model_type="mistral",
    class_prefix="Mistral",
    older_architectures={},
    defaults=replace(LLAMA_DEFAULTS, intermediate_size=14336, max_positions=131072, num_kv_heads=8),
    config_keys={**LLAMA_KEYS, "head_width": "head_dim"},
    adjust=read_mistral,
)
