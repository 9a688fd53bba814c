"""A tokenizer of a few word pieces, and the labels that go with it."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from sparse_encoder.backbone.families import read_config
from sparse_encoder.token_classification import TokenClassificationModel
from sparse_encoder.tokenizer import Tokenizer, TokenizerConfig

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "zoe", "sy", "##lva", "##in", "works", "at", "a", "."]
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def tokenizer(**config: Any) -> Tokenizer:  # noqa: ANN401 - fields of TokenizerConfig
    """Make the tokenizer; arguments are fields of its configuration."""
    backend = Backend(models.WordPiece({piece: number for number, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return Tokenizer(backend, TokenizerConfig(special_tokens=special, **{"model_max_length": 64, **config}))


def config() -> dict[str, Any]:
    """Return the ``config.json`` of a tiny BERT for the tokenizer."""
    return {
        "model_type": "bert",
        "vocab_size": len(PIECES),
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 20,
        "max_position_embeddings": 16,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.3,
    }


def tagger(*, class_weights: list[float] | None = None, use_crf: bool | None = None) -> TokenClassificationModel:
    """Make a tagger of random weights, always the same, in evaluation mode."""
    torch.manual_seed(1)
    hf_config = {**config(), "id2label": dict(enumerate(LABELS))}
    model = TokenClassificationModel(read_config(hf_config), hf_config, class_weights=class_weights, use_crf=use_crf)
    model.post_init()
    return model.eval()
