"""A small encoder made from nothing but texts: a tokenizer trained on them, and a BERT that starts from BM25."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from sparse_encoder.backbone import MaskedLanguageModel
from sparse_encoder.cli.docstrings import Corpus
from sparse_encoder.cli.lexical_start import LexicalStart, start_lexically
from sparse_encoder.cli.term_directions import term_directions
from sparse_encoder.model import SparseEncoder
from sparse_encoder.modules import SpladePooling, Transformer
from sparse_encoder.tokenizer import Tokenizer, TokenizerConfig

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_UNKNOWN = SPECIAL_TOKENS["unk_token"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SmallModel:
    """Sizes of the model."""

    vocab_size: int = 6000
    """Small on purpose: with few word pieces, forms of a word share their first piece."""
    hidden_size: int = 128
    num_layers: int = 2
    num_heads: int = 2
    max_length: int = 128
    """Tokens of a text; what follows is cut off."""
    seed: int = 0


def build_small_model(corpus: Corpus, sizes: SmallModel) -> SparseEncoder:
    """Make an encoder that ranks about as BM25 does and is ready to be trained.

    Args:
        corpus: Documents, and questions to train on; held-out questions are not read.
        sizes: Of the model.
    """
    texts = [*corpus.documents, *(question.text for question in corpus.training)]
    tokenizer = train_tokenizer(texts, vocab_size=sizes.vocab_size, max_length=sizes.max_length)
    rows = tokenizer.encode_batch(texts, max_length=sizes.max_length).input_ids
    documents = rows[: len(corpus.docstrings)]
    together = list(documents)
    for question, row in zip(corpus.training, rows[len(documents) :], strict=True):
        together[question.document] = row + together[question.document]
    torch.manual_seed(sizes.seed)
    model = MaskedLanguageModel.from_config(_bert_config(tokenizer, sizes))
    start_lexically(
        model,
        inverse_document_frequency(documents, tokenizer.vocab_size),
        term_directions(together, num_terms=tokenizer.vocab_size, size=sizes.hidden_size, seed=sizes.seed),
        cls_id=tokenizer.cls_token_id,
        special_ids=tokenizer.all_special_ids,
        start=LexicalStart(mean_length=sum(map(len, documents)) / len(documents)),
    )
    return SparseEncoder(modules=[Transformer.from_parts(model, tokenizer), SpladePooling("max")])


def inverse_document_frequency(rows: Sequence[Sequence[int]], num_terms: int) -> torch.Tensor:
    """Return BM25's idf of each term of a vocabulary, (V,); 0 for terms that no row has.

    Args:
        rows: Ids of the terms of each document.
        num_terms: V.
    """
    having = torch.bincount(torch.tensor([term for row in rows for term in set(row)]), minlength=num_terms)
    return torch.where(having > 0, torch.log1p((len(rows) - having + 0.5) / (having + 0.5)), 0.0)


def train_tokenizer(texts: Sequence[str], *, vocab_size: int, max_length: int) -> Tokenizer:
    """Learn word pieces from texts with identifiers in them; the same ones in every process.

    ``snake_case`` and ``CamelCase`` are cut into words, and only letters and digits count.

    Args:
        texts: To learn from.
        vocab_size: Most pieces.
        max_length: Most tokens of a text.
    """
    normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Replace(Regex(r"(?<=[a-z0-9])(?=[A-Z])"), " "),
            normalizers.Replace(Regex(r"(?<=[A-Z])(?=[A-Z][a-z])"), " "),
            normalizers.Replace(Regex(r"[^\p{L}\p{N}]+"), " "),
            normalizers.Lowercase(),
        ]
    )
    backend = Backend(models.WordPiece(_word_pieces(texts, normalizer, vocab_size), unk_token=_UNKNOWN))
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(list(SPECIAL_TOKENS.values()))
    cls, sep = SPECIAL_TOKENS["cls_token"], SPECIAL_TOKENS["sep_token"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in (cls, sep)],
    )
    return Tokenizer(backend, TokenizerConfig(special_tokens=SPECIAL_TOKENS, model_max_length=max_length))


def _word_pieces(texts: Sequence[str], normalizer: normalizers.Normalizer, vocab_size: int) -> dict[str, int]:
    """Return the id of each piece.

    The trainer numbers letters in the order of a hash map, and breaks ties between pieces by their numbers. Here the
    letters are numbered before, as if they were special tokens, so that nothing is left to chance.
    """
    normalized = [normalizer.normalize_str(text) for text in texts]
    letters = sorted({letter for text in normalized for letter in set(text) if not letter.isspace()})
    first = [*SPECIAL_TOKENS.values(), *letters, *(f"##{letter}" for letter in letters)]
    backend = Backend(models.WordPiece(unk_token=_UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=first, show_progress=False
    )
    backend.train_from_iterator(normalized, trainer=trainer)
    return backend.get_vocab()


def _bert_config(tokenizer: Tokenizer, sizes: SmallModel) -> dict[str, object]:
    """Return the ``config.json``; without dropout, which would blur the start."""
    return {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": sizes.hidden_size,
        "num_hidden_layers": sizes.num_layers,
        "num_attention_heads": sizes.num_heads,
        "intermediate_size": 2 * sizes.hidden_size,
        "max_position_embeddings": sizes.max_length,
        "pad_token_id": tokenizer.pad_token_id,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "tie_word_embeddings": True,
    }
