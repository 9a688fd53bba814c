"""SPLADE models on MPNet and DeBERTa, made by transformers, here and in sentence-transformers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import randomise

from sparse_encoder import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments, losses

transformers = pytest.importorskip("transformers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sparse_encoder import losses as peer_losses

datasets = pytest.importorskip("datasets")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

LETTERS = [f"{start}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" for start in ("", "▁")]
WORDS = "rain sun river stone bread oven mill leaf".split()  # noqa: SIM905
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
TEXTS = ["rain on the river", "a stone oven", "", "bread", "sun " * 70, "leaf, mill; sun"]
SIZES = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "max_position_embeddings": 64,
}
DEBERTA = {
    "model_type": "deberta-v2",
    **SIZES,
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
}
CONFIGS = {
    "mpnet": {"model_type": "mpnet", **SIZES},
    "deberta-v3": DEBERTA,
    "deberta-v2": {**DEBERTA, "conv_kernel_size": 3, "share_att_key": False, "legacy": False},
}


def tokenizer_of(model_type: str) -> Any:  # noqa: ANN401 - a peer's class
    if model_type == "mpnet":
        tokens = ["<s>", "<pad>", "</s>", "[UNK]", *WORDS, *LETTERS[::2], *(f"##{x}" for x in LETTERS[::2]), "<mask>"]
        return transformers.MPNetTokenizer(vocab={token: number for number, token in enumerate(tokens)})
    pieces = [(token, 0.0) for token in SPECIAL]
    pieces += [(f"▁{word}", -1.0) for word in WORDS] + [(letter, -4.0) for letter in ["▁", *LETTERS]]
    return transformers.DebertaV2TokenizerFast(vocab=pieces)


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as transformers leaves it."""
    folder = tmp_path_factory.mktemp("plain")
    tokenizer = tokenizer_of(CONFIGS[request.param]["model_type"])
    tokenizer.model_max_length = 60
    config = transformers.AutoConfig.for_model(**CONFIGS[request.param], vocab_size=len(tokenizer))
    model = transformers.AutoModelForMaskedLM.from_config(config)
    randomise(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def vectors(model: Any) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401 - ours or the peer's
    return tuple(encode(TEXTS).to_dense() for encode in (model.encode_query, model.encode_document))


def assert_same(ours: Any, theirs: Any) -> None:  # noqa: ANN401 - ours or the peer's
    for found, expected in zip(vectors(ours), vectors(theirs), strict=True):
        assert expected.count_nonzero() > 20
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)
    assert ours.max_seq_length == theirs.max_seq_length


def test_vectors_equal_those_of_the_peer_and_travel_both_ways(folder: Path, tmp_path: Path) -> None:
    ours, theirs = SparseEncoder(str(folder), device="cpu"), peer.SparseEncoder(str(folder), device="cpu")
    assert_same(ours, theirs)
    ours.save_pretrained(str(tmp_path / "ours"))
    theirs.save_pretrained(str(tmp_path / "theirs"))
    assert_same(ours, peer.SparseEncoder(str(tmp_path / "ours"), device="cpu"))
    assert_same(SparseEncoder(str(tmp_path / "theirs"), device="cpu"), theirs)
    for found, expected in zip(
        vectors(SparseEncoder(str(tmp_path / "ours"), device="cpu")), vectors(ours), strict=True
    ):
        assert torch.equal(found, expected)


def test_a_vector_is_the_same_alone_and_among_others(folder: Path) -> None:
    ours = SparseEncoder(str(folder), device="cpu")
    together = ours.encode_document(TEXTS).to_dense()
    for row, text in enumerate(TEXTS):
        assert torch.equal(ours.encode_document([text]).to_dense()[0], together[row])
    assert torch.equal(ours.encode_document(TEXTS[::-1], batch_size=2).to_dense().flip(0), together)


def trained(library: Any, folder: Path, output: Path) -> list[dict[str, float]]:  # noqa: ANN401
    """Train three steps; returns what was logged."""
    ours = library is SparseEncoder
    model = library(str(folder), device="cpu")
    functions = losses if ours else peer_losses
    loss = functions.SpladeLoss(
        model,
        loss=functions.SparseMultipleNegativesRankingLoss(model),
        document_regularizer_weight=3e-3,
        query_regularizer_weight=5e-3,
    )
    arguments = SparseEncoderTrainingArguments if ours else peer.SparseEncoderTrainingArguments
    args = arguments(
        output_dir=str(output),
        per_device_train_batch_size=4,
        max_steps=3,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        report_to="none",
    )
    rows = {
        "anchor": [f"{WORDS[number % 8]} {WORDS[(3 * number) % 8]}" for number in range(12)],
        "positive": [f"{WORDS[(number + 1) % 8]} of the {WORDS[number % 8]} and more" for number in range(12)],
    }
    trainer = (SparseEncoderTrainer if ours else peer.SparseEncoderTrainer)(
        model=model, args=args, train_dataset=datasets.Dataset.from_dict(rows), loss=loss
    )
    trainer.train()
    return [row for row in trainer.state.log_history if "loss" in row]


def test_training_takes_the_same_course(folder: Path, tmp_path: Path) -> None:
    found = trained(SparseEncoder, folder, tmp_path / "ours")
    expected = trained(peer.SparseEncoder, folder, tmp_path / "theirs")
    assert len(found) == len(expected) == 3
    for row, other in zip(found, expected, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert row["grad_norm"] == pytest.approx(other["grad_norm"], rel=2e-3)


def test_a_trained_model_is_saved_and_read_there(folder: Path, tmp_path: Path) -> None:
    ours = SparseEncoder(str(folder), device="cpu")
    ours.train()
    loss = losses.SparseMultipleNegativesRankingLoss(ours)
    optimizer = torch.optim.SGD(ours.parameters(), lr=1e-2)
    before = vectors(ours.eval())[0]
    ours.train()
    loss([ours.preprocess(TEXTS[:2]), ours.preprocess(TEXTS[3:5])]).backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())
    optimizer.step()
    ours.eval()
    assert not torch.allclose(vectors(ours)[0], before)
    ours.save_pretrained(str(tmp_path / "trained"))
    assert_same(ours, peer.SparseEncoder(str(tmp_path / "trained"), device="cpu"))
