"""Tiny configs of every family of decoders, and what their tests share."""

from __future__ import annotations

from typing import Any

import torch
from backbone_helpers import V
from torch import Tensor

_LLAMA = {
    "vocab_size": V,
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 40,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_WITHOUT_HEAD_DIM = {key: value for key, value in _LLAMA.items() if key != "head_dim"}
_QWEN2 = {**_WITHOUT_HEAD_DIM, "model_type": "qwen2", "hidden_size": 24}

DECODER_CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": V,
        "n_embd": 12,
        "n_layer": 3,
        "n_head": 3,
        "n_inner": 20,
        "n_positions": 40,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "llama": {"model_type": "llama", **_LLAMA},
    "mistral": {"model_type": "mistral", **_LLAMA, "sliding_window": 4},
    "qwen2": _QWEN2,
    "qwen3": {"model_type": "qwen3", **_LLAMA},
}
"""One per ``model_type``."""

DECODER_VARIANTS: dict[str, dict[str, Any]] = {
    "gpt2 that is untied and does not scale": {
        **DECODER_CONFIGS["gpt2"],
        "tie_word_embeddings": False,
        "scale_attn_weights": False,
        "n_inner": None,
        "activation_function": "relu",
    },
    "llama with biases and one width": {
        "model_type": "llama",
        **_WITHOUT_HEAD_DIM,
        "hidden_size": 24,
        "num_key_value_heads": None,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-3,
        "pad_token_id": 0,
    },
    "llama with stretched waves": {
        **DECODER_CONFIGS["llama"],
        "head_dim": 8,
        "rope_theta": 500.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "llama with stretched places": {
        **DECODER_CONFIGS["llama"],
        "rope_parameters": {"rope_type": "linear", "rope_theta": 300.0, "factor": 2.5},
    },
    "qwen2 with waves stretched by yarn": {
        **_QWEN2,
        "hidden_size": 48,
        "max_position_embeddings": 32,
        "rope_theta": 50.0,
        "rope_scaling": {"type": "yarn", "factor": 3.0, "original_max_position_embeddings": 9, "beta_fast": 0.5}
        | {"beta_slow": 0.1},
    },
    "llama with all that yarn takes": {
        **DECODER_CONFIGS["llama"],
        "head_dim": 12,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 300.0,
            "factor": 7.0,
            "original_max_position_embeddings": 40,
            "mscale": 0.7,
            "mscale_all_dim": 1.4,
            "beta_fast": 3.0,
            "beta_slow": 0.3,
            "truncate": False,
        },
    },
    "qwen3 with yarn and an amplitude": {
        **DECODER_CONFIGS["qwen3"],
        "rope_theta": 90.0,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.7},
    },
    "mistral without a window": {**DECODER_CONFIGS["mistral"], "sliding_window": None},
    "mistral with a window beyond the text": {**DECODER_CONFIGS["mistral"], "sliding_window": 30},
    "qwen2 with windows": {**_QWEN2, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    "qwen2 with named layers": {
        **_QWEN2,
        "use_sliding_window": True,
        "sliding_window": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "qwen3 with biases": {**DECODER_CONFIGS["qwen3"], "attention_bias": True, "num_key_value_heads": 3},
}
"""What the families' options can do besides."""

BIDIRECTIONAL: dict[str, dict[str, Any]] = {
    name: {**DECODER_CONFIGS[name], "is_causal": False} for name in ("llama", "mistral", "qwen2", "qwen3")
}


def prompts(padding: str = "left", seed: int = 0) -> dict[str, Tensor]:
    """Make a batch whose texts have 11, 7 and 2 tokens, padded with id 0 on one side."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(1, V, (3, 11), generator=generator)
    attention_mask = torch.ones(3, 11, dtype=torch.long)
    for row, length in enumerate((11, 7, 2)):
        hidden = slice(0, 11 - length) if padding == "left" else slice(length, None)
        attention_mask[row, hidden] = 0
        input_ids[row, hidden] = 0
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def places(attention_mask: Tensor) -> Tensor:
    """Count places behind the padding, as generation does, (B, T)."""
    return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
