"""Folders of tiny decoders with a tokenizer, as the hub has them, for encoders made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from text_helpers import llama_tokenizer

from sparse_encoder.backbone import MaskedLanguageModel

V = 277
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": V,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 48,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "initializer_range": 0.5,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DECODERS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "qwen2": {**LLAMA, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": True},
    "qwen3": {**LLAMA, "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 8},
    "mistral": {**LLAMA, "model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 5},
    "gpt2": {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": V,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 48,
        "activation_function": "gelu_new",
        "initializer_range": 0.5,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
}
"""A ``config.json`` of each family; words of Qwen 2 and GPT-2 are tied to the head."""

TEXTS = ["spare dense", "a", "", "spare a dense spare. é東 a dense", "dense " * 30]
"""Of several lengths, one longer than the positions."""


def write_decoder(folder: Path, family: str = "llama", *, bos: bool = True, seed: int = 0, **changes: object) -> Path:
    """Write a checkpoint of random weights with a tokenizer that has no padding token."""
    torch.manual_seed(seed)
    model = MaskedLanguageModel.from_config({**DECODERS[family], **changes})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # norms and biases, which start at one and zero
                parameter.add_(0.2 * torch.randn(parameter.shape))
            assert parameter.std() > 0, name
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    llama_tokenizer(bos=bos).save_pretrained(folder)
    return folder


def config_of(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Read a JSON file of a folder."""
    content: dict[str, Any] = json.loads((folder / name).read_text())
    return content
