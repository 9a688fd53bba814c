"""Training a small SPLADE model here and with sentence-transformers: the same losses, norms, rates and orders."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from model_helpers import WORDS, write_masked_language_model

from sparse_encoder import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments, losses

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sparse_encoder import losses as peer_losses

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

Model = Any  # ours or the peer's
OURS, PEER = "ours", "peer"


def rows(count: int, columns: tuple[str, ...] = ("anchor", "positive")) -> Dataset:
    """Return texts of 1 to 12 words."""
    draw = random.Random(5)
    return Dataset.from_dict(
        {name: [" ".join(draw.choices(WORDS, k=draw.randint(1, 12))) for _ in range(count)] for name in columns}
    )


def train(library: str, folder: Path, data: Dataset, **options: Any) -> Any:  # noqa: ANN401  (either library's trainer)
    """Train a model that both libraries read from one folder."""
    kinds = {
        OURS: (SparseEncoder, SparseEncoderTrainingArguments, SparseEncoderTrainer, losses),
        PEER: (
            peer.SparseEncoder,
            peer.SparseEncoderTrainingArguments,
            peer.SparseEncoderTrainer,
            peer_losses,
        ),
    }
    encoder, arguments, trainer, functions = kinds[library]
    if not (folder / "plain").exists():
        write_masked_language_model(folder / "plain")
    model = encoder(str(folder / "plain"), device="cpu")
    evaluation = options.pop("eval_dataset", None)
    weights = {
        "document_regularizer_weight": options.pop("document_regularizer_weight", 3e-3),
        "query_regularizer_weight": options.pop("query_regularizer_weight", 5e-3),
    }
    loss = functions.SpladeLoss(model, loss=functions.SparseMultipleNegativesRankingLoss(model), **weights)
    settings = {
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "report_to": "none",
        **options,
    }
    args = arguments(output_dir=str(folder / library), **settings)
    run = trainer(model=model, args=args, train_dataset=data, eval_dataset=evaluation, loss=loss)
    run.train()
    return run


def training_rows(run: Any) -> list[dict[str, float]]:  # noqa: ANN401  (either library's trainer)
    return [row for row in run.state.log_history if "loss" in row]


def assert_same_course(ours: Any, theirs: Any, count: int) -> None:  # noqa: ANN401  (as above)
    found, expected = training_rows(ours), training_rows(theirs)
    assert len(found) == len(expected) == count
    for row, other in zip(found, expected, strict=True):
        assert row.keys() == other.keys()
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert row["grad_norm"] == pytest.approx(other["grad_norm"], rel=2e-3)
        assert row["learning_rate"] == pytest.approx(other["learning_rate"], rel=1e-9)
        assert (row["step"], row["epoch"]) == (other["step"], pytest.approx(other["epoch"]))
        for name in ("base_loss", "document_regularizer_loss", "query_regularizer_loss"):
            assert row[name] == pytest.approx(other[name], abs=6e-5, rel=1e-4)  # the peer rounds to 4 digits


def test_twenty_losses_are_those_of_the_peer(tmp_path: Path) -> None:
    data = rows(42)  # 11 batches an epoch, the last of 2 rows
    options = {"max_steps": 20, "warmup_steps": 5, "weight_decay": 0.1, "seed": 11}
    ours, theirs = (train(library, tmp_path, data, **options) for library in (OURS, PEER))
    assert_same_course(ours, theirs, 20)
    changed = [row["loss"] for row in training_rows(ours)]
    assert max(changed) - min(changed) > 0.1  # it is no constant that agrees
    assert ours.state.log_history[-1]["train_loss"] == pytest.approx(
        theirs.state.log_history[-1]["train_loss"], rel=1e-4
    )


def test_accumulated_updates_are_those_of_the_peer_but_for_the_judged_batch(tmp_path: Path) -> None:
    """The regularizers judge the whole update here, and each micro-batch there: without them all is the same."""
    options = {
        "document_regularizer_weight": 0.0,
        "query_regularizer_weight": 0.0,
        "num_train_epochs": 2,
        "gradient_accumulation_steps": 3,
        "lr_scheduler_type": "cosine",
    }
    ours, theirs = (train(library, tmp_path, rows(29), **options) for library in (OURS, PEER))
    assert_same_course(ours, theirs, 6)


def test_triplets_are_trained_as_by_the_peer(tmp_path: Path) -> None:
    data = rows(12, ("anchor", "positive", "negative"))
    options = {"num_train_epochs": 1, "max_grad_norm": 0.5, "optim": "adamw_torch", "learning_rate": 3e-3}
    ours, theirs = (train(library, tmp_path, data, **options) for library in (OURS, PEER))
    assert_same_course(ours, theirs, 3)


def test_prompts_are_put_before_texts_as_by_the_peer(tmp_path: Path) -> None:
    options = {"num_train_epochs": 1, "prompts": {"anchor": "query word ", "positive": "text "}}
    ours, theirs = (train(library, tmp_path, rows(12), **options) for library in (OURS, PEER))
    assert_same_course(ours, theirs, 3)


def test_learning_rates_go_by_the_patterns_of_the_peer(tmp_path: Path) -> None:
    options = {"num_train_epochs": 1, "learning_rate_mapping": {r"embeddings": 1e-4}, "weight_decay": 0.01}
    ours, theirs = (train(library, tmp_path, rows(12), **options) for library in (OURS, PEER))
    assert [len(group) for group in ours.get_optimizer_group()] == [
        len(group) for group in theirs.get_optimizer_group() if group
    ]
    assert_same_course(ours, theirs, 3)


def test_an_evaluation_has_the_loss_and_the_keys_of_the_peer(tmp_path: Path) -> None:
    options = {
        "max_steps": 6,
        "eval_strategy": "steps",
        "eval_steps": 6,  # the weights of the regularizers are full
        "eval_dataset": rows(8),
        "per_device_eval_batch_size": 4,
    }
    ours, theirs = (train(library, tmp_path, rows(12), **options) for library in (OURS, PEER))
    (found,), (expected,) = ([row for row in run.state.log_history if "eval_loss" in row] for run in (ours, theirs))
    assert found.keys() == expected.keys()
    assert found["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-4)
    assert ours.state.log_history[-1].keys() == theirs.state.log_history[-1].keys()


def test_batches_are_tokenized_as_by_the_peer(tmp_path: Path) -> None:
    ours, theirs = (train(library, tmp_path, rows(9), max_steps=1) for library in (OURS, PEER))
    for loader in ("get_train_dataloader",):
        for found, expected in zip(getattr(ours, loader)(), getattr(theirs, loader)(), strict=True):
            tensors = {key for key, value in expected.items() if isinstance(value, torch.Tensor)}
            assert tensors <= set(found)
            assert all(torch.equal(found[key], expected[key]) for key in tensors)


def test_parameters_are_grouped_as_by_the_peer(tmp_path: Path) -> None:
    ours, theirs = (train(library, tmp_path, rows(4), max_steps=1, weight_decay=0.1) for library in (OURS, PEER))
    for found, expected in zip(ours.get_optimizer_group(), theirs.get_optimizer_group(), strict=True):
        assert sorted(tuple(each.shape) for each in found) == sorted(tuple(each.shape) for each in expected)
    assert ours.get_num_trainable_parameters() == theirs.get_num_trainable_parameters()
