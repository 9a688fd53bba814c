"""A tokenizer of a few word pieces, and the labels that go with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn

from sparse_encoder.backbone import EncoderModel, PretrainedModel
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


class IdTagger(nn.Module):
    """Label tokens by their ids alone: what neither context nor windows can change.

    Args:
        names: Of the labels.
        labels: Label of each id; the others have the first one.
        vocab_size: How many ids there are.
    """

    def __init__(self, names: list[str], labels: dict[int, int], vocab_size: int) -> None:
        super().__init__()
        self.config = tagger().config
        self.id2label = dict(enumerate(names))
        self.num_labels = len(names)
        self.device = torch.device("cpu")
        self.head = nn.Module()
        self.head.crf = None
        self.table = nn.Embedding(vocab_size, len(names))
        self.shapes: list[tuple[int, ...]] = []
        with torch.no_grad():
            self.table.weight.zero_()
            for number in range(vocab_size):
                self.table.weight[number, labels.get(number, 0)] = 9.0

    def forward(self, input_ids: torch.Tensor, **others: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the scores, (B, T, L)."""
        assert all(each.shape == input_ids.shape for each in others.values())
        self.shapes.append(tuple(input_ids.shape))
        return {"logits": self.table(input_ids)}


UNIGRAMS = (
    *("<pad>", "<unk>", "▁", "▁New", "▁York", "▁from", "▁to", "▁works", "▁at", "▁fa", "ç", "ade", "▁Zo", "ë"),
    *("東", "京", "ह", "ि", "न", "्", "द", "ी"),
)


def splitting(kind: str, texts: list[str]) -> Tokenizer:
    """Make a small tokenizer without special tokens around a text.

    Args:
        kind: ``"bytes"`` for byte-level BPE, ``"metaspace"`` for Unigram on words, ``"whole"`` for Unigram on texts.
        texts: What byte-level BPE learns.
    """
    if kind == "bytes":
        backend = Backend(models.BPE(unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<pad>", "<unk>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer=trainer)
    else:
        backend = Backend(models.Unigram([(piece, -1.0) for piece in UNIGRAMS], unk_id=1))
        backend.decoder = decoders.Metaspace()
        if kind == "whole":
            backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        else:
            backend.pre_tokenizer = pre_tokenizers.Metaspace()
    names = {"pad_token": "<pad>", "unk_token": "<unk>"}
    return Tokenizer(backend, TokenizerConfig(special_tokens=names, model_max_length=16))


def word_pieces(sentences: Iterable[Iterable[str]], *, vocab_size: int) -> list[str]:
    """Return a vocabulary: every letter, and the words that are most frequent; the same in every process.

    (Pieces that ``tokenizers`` learns differ from process to process, and with them how well a small model learns.)
    """
    counts = Counter(word for words in sentences for word in words)
    letters = sorted({letter for word in counts for letter in word})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    words = sorted((word for word in counts if len(word) > 1), key=lambda word: (-counts[word], word))
    return [*pieces, *words[: max(vocab_size - len(pieces), 0)]]


def write_encoder(
    folder: Path,
    sentences: Sequence[Sequence[str]],
    *,
    kind: type[PretrainedModel] = EncoderModel,
    vocab_size: int,
    max_positions: int = 32,
) -> None:
    """Write an encoder that is small enough to learn in a test, always the same, and a tokenizer of some sentences."""
    pieces = word_pieces(sentences, vocab_size=vocab_size)
    torch.manual_seed(0)
    kind.from_config(
        {
            "model_type": "bert",
            "vocab_size": len(pieces),
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": max_positions,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
    ).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
