"""A tokenizer of a few word pieces, and the labels that go with it."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

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
