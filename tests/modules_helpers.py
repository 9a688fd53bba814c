"""Small modules and features for the tests of modules."""

from __future__ import annotations

from typing import Any

import torch
from text_helpers import bert_tokenizer
from torch import Tensor

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel
from sparse_encoder.modules import Transformer

B, T, D = 2, 5, 12
V = 17

CONFIG = {
    "model_type": "bert",
    "vocab_size": V,
    "hidden_size": D,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.5,
}


def transformer(
    task: str = "fill-mask",
    *,
    query_length: int | None = None,
    document_length: int | None = None,
    processing_kwargs: dict[str, Any] | None = None,
) -> Transformer:
    """Make a BERT of random weights with a tokenizer of 15 tokens."""
    torch.manual_seed(0)
    kind = MaskedLanguageModel if task == "fill-mask" else EncoderModel
    return Transformer.from_parts(
        kind.from_config(CONFIG).eval(),
        bert_tokenizer(),
        query_length=query_length,
        document_length=document_length,
        processing_kwargs=processing_kwargs,
    )


def token_features(seed: int = 0, width: int = D) -> dict[str, Tensor]:
    """Make token embeddings of two texts: three tokens and padding; two, after padding, with a hole between."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "token_embeddings": torch.randn(B, T, width, generator=generator),
        "attention_mask": torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 0, 1]]),
    }
