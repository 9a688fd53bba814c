"""Qwen 2 and 3: Llama with biases at queries, keys and values, or with norms there, and windows in some layers."""

from __future__ import annotations

from dataclasses import replace

from sparse_encoder.backbone.families.llama import LLAMA, LLAMA_DEFAULTS, LLAMA_KEYS
from sparse_encoder.backbone.families.windows import read_qwen

QWEN2 = replace(
    LLAMA,
    model_type="qwen2",
    class_prefix="Qwen2",
    older_architectures={},
    defaults=replace(
        LLAMA_DEFAULTS,
        vocab_size=151936,
        intermediate_size=22016,
        max_positions=32768,
        num_kv_heads=32,
        attention_bias=True,
        attention_output_bias=False,
    ),
    config_keys=LLAMA_KEYS,
    adjust=read_qwen,
)

QWEN3 = replace(
    QWEN2,
    model_type="qwen3",
    class_prefix="Qwen3",
    defaults=replace(
        QWEN2.defaults, head_width=128, attention_bias=False, attention_output_bias=None, query_key_norm=True
    ),
    config_keys={**LLAMA_KEYS, "head_width": "head_dim", "attention_bias": "attention_bias"},
)
