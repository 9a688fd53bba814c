"""What the benchmarks work on: a masked-language model of MiniLM's size with random weights, and real texts.

The texts are the docstrings of the Python packages on this machine, so nothing is downloaded. What speed and memory
depend on is how many terms are active: the bias of the head is set so that a document has about 200, as in a trained
model.
"""

from __future__ import annotations

import json
from pathlib import Path

VOCABULARY = 30_522
TOKENS = 256
ACTIVE_TERMS = 200


def write_texts(folder: Path) -> Path:
    """Write (question, document) pairs of docstrings as JSON and return the file."""
    from sparse_encoder.cli.docstrings import read_docstrings

    target = folder / "pairs.json"
    pairs = [(pair.question, pair.document) for pair in read_docstrings()]
    target.write_text(json.dumps(pairs), encoding="utf-8")
    return target


def read_texts(path: Path) -> list[tuple[str, str]]:
    """Read the pairs that :func:`write_texts` wrote."""
    return [(question, document) for question, document in json.loads(path.read_text(encoding="utf-8"))]


def write_model(folder: Path, texts: list[str]) -> Path:
    """Write a random BERT of 6 layers x 384 with a 30,522-word head and a word-piece tokenizer of these texts."""
    import torch
    from tokenizers import BertWordPieceTokenizer

    from sparse_encoder import SparseEncoder
    from sparse_encoder.backbone import MaskedLanguageModel

    target = folder / "model"
    torch.manual_seed(0)
    model = MaskedLanguageModel.from_config(
        {
            "model_type": "bert",
            "architectures": ["BertForMaskedLM"],
            "vocab_size": VOCABULARY,
            "hidden_size": 384,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "intermediate_size": 1536,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
            "hidden_act": "gelu",
            "pad_token_id": 0,
        }
    )
    model.save_pretrained(target)
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(texts, vocab_size=VOCABULARY, min_frequency=1, show_progress=False)
    tokenizer.save_model(str(target))
    (target / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": TOKENS})
    )
    long_texts = sorted(texts, key=len)[-16:]
    weights = SparseEncoder(str(target), device="cpu").encode_document(long_texts).to_dense()
    largest = weights.expm1().flatten().topk(len(long_texts) * ACTIVE_TERMS).values  # of the logits
    assert model.head.bias is not None  # every BERT has one
    with torch.no_grad():
        model.head.bias.sub_(largest[-1])
    model.save_pretrained(target)
    return target
