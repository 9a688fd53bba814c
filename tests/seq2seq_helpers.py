"""Tiny encoder-decoders of both families, and batches for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

B, S, T, D, V = 3, 7, 5, 12, 17
"""Texts, the encoder's tokens, the decoder's, hidden size, vocabulary."""

_T5 = {
    "model_type": "t5",
    "vocab_size": V,
    "d_model": D,
    "d_kv": 5,
    "d_ff": 20,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 9,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
_BART = {
    "model_type": "bart",
    "vocab_size": V,
    "d_model": D,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 28,
    "max_position_embeddings": 26,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}
SEQ2SEQ_CONFIGS: dict[str, dict[str, Any]] = {
    "t5": _T5,
    "t5 v1.1": {
        **_T5,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "num_layers": 3,
        "num_decoder_layers": 2,
    },
    "t5 of one depth": {
        key: value for key, value in {**_T5, "feed_forward_proj": "gated-silu"}.items() if key != "num_decoder_layers"
    },
    "mt5": {**_T5, "model_type": "mt5", "tie_word_embeddings": False},
    "mt5 that is tied": {**_T5, "model_type": "mt5", "tie_word_embeddings": True, "feed_forward_proj": "relu"},
    "bart": _BART,
    "bart with scaled embeddings": {
        **_BART,
        "scale_embedding": True,
        "encoder_layers": 3,
        "decoder_layers": 1,
        "activation_function": "relu",
    },
    "bart with a head of its own": {**_BART, "tie_word_embeddings": False},
}
"""One per form of each family; the depths of the stacks differ, and in bart heads and widths too."""


@torch.no_grad()
def randomise_pair(model: nn.Module, seed: int = 0) -> None:
    """Give every parameter and buffer values far from those it starts with, so that each of them shows."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        tensor.copy_(centre + 0.3 * torch.randn(tensor.shape, generator=generator))


def encoder_batch(*, left: bool, pad: int, seed: int = 0) -> dict[str, Tensor]:
    """Make a batch whose texts have 7, 4 and 2 tokens, padded at one side; ids below 3 are special."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(3, V, (B, S), generator=generator)
    attention_mask = torch.ones(B, S, dtype=torch.long)
    for row, length in enumerate((S, 4, 2)):
        padding = slice(0, S - length) if left else slice(length, S)
        attention_mask[row, padding] = 0
        input_ids[row, padding] = pad
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def decoder_ids(seed: int = 1, tokens: int = T) -> Tensor:
    """Make ids for the decoder, (B, tokens)."""
    return torch.randint(3, V, (B, tokens), generator=torch.Generator().manual_seed(seed))
