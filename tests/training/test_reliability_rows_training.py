"""Rows 51 to 56 of bad_inputs.py: what a trainer refuses and survives: data, numbers, settings, collapse."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor, nn
from training_helpers import digest, pairs, splade_loss, tiny_encoder, trainer

from sparse_encoder.losses import EmbeddingLoss, SparseMultipleNegativesRankingLoss
from sparse_encoder.training import SparseEncoderTrainer
from sparse_encoder.training.loop import MAX_SKIPPED_IN_A_ROW

Anything = Any  # a setting or a row


class ScriptedLoss(EmbeddingLoss):
    """The mean of all weights, times a factor that depends on the call."""

    def __init__(self, model: nn.Module, factors: list[float]) -> None:
        super().__init__(model)
        self.factors, self.calls = factors, 0

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        factor = self.factors[min(self.calls, len(self.factors) - 1)]
        self.calls += 1
        return torch.stack([each.mean() for each in embeddings]).sum() * factor

    def get_config_dict(self) -> dict[str, Any]:
        return {}


def scored(scores: list[Anything]) -> Dataset:
    return pairs(len(scores)).add_column("score", scores)


def unchanged(run: SparseEncoderTrainer) -> bool:
    before = tiny_encoder().state_dict()
    names = [name for name in before if name != "calls"]
    return all(torch.equal(run.model.state_dict()[name], before[name]) for name in names)


def test_row_51_an_empty_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train_dataset.* has no rows"):
        trainer(tmp_path, rows=pairs(0))
    with pytest.raises(ValueError, match=r"train_dataset\['b'\] has no rows"):
        trainer(tmp_path, rows={"a": pairs(3), "b": pairs(0)})
    with pytest.raises(ValueError, match="without datasets"):
        trainer(tmp_path, rows={})


def test_row_51_one_row_is_trained_on_and_fewer_than_a_batch_are_told(tmp_path: Path) -> None:
    assert trainer(tmp_path, rows=pairs(1), num_train_epochs=1).train().global_step == 1
    with pytest.raises(ValueError, match="has 3 rows, not enough for one batch of 4"):
        trainer(tmp_path, rows=pairs(3), dataloader_drop_last=True).train()


def test_row_51_texts_that_occur_twice_can_be_kept_out_of_a_batch(tmp_path: Path) -> None:
    twice = Dataset.from_dict({"anchor": ["a", "b", "c", "d"] * 3, "positive": ["w", "x", "y", "z"] * 3})
    run = trainer(tmp_path, rows=twice, batch_sampler="no_duplicates")
    for batch in run.get_train_dataloader():
        ids = batch["anchor_input_ids"].tolist()
        assert len({tuple(row) for row in ids}) == len(ids)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_row_52_a_label_that_is_no_number_stops_before_the_first_update(bad: float, tmp_path: Path) -> None:
    run = trainer(tmp_path, rows=scored([1.0, 0.5, bad, 0.0]), max_steps=1)
    with pytest.raises(ValueError, match="score.*row"):
        run.train()
    assert unchanged(run)


def test_row_52_teacher_scores_of_the_wrong_count_are_named(tmp_path: Path) -> None:
    run = trainer(tmp_path, rows=scored([[1.0, 0.5], [1.0, 0.5], [1.0], [0.2, 0.1]]), max_steps=1)
    with pytest.raises(ValueError, match="score.*row"):
        run.train()
    assert unchanged(run)


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch", "sgd", "adafactor", "adamw_hf"])
def test_row_53_a_loss_that_is_nan_moves_nothing_and_is_counted(
    optim: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_encoder()
    loss = ScriptedLoss(model, [float("nan"), float("nan"), 1.0])
    run = trainer(tmp_path, model, loss=loss, max_steps=2, optim=optim, num_train_epochs=1)
    run.train()
    assert unchanged(run)
    assert "updates were left out: their gradient was not finite" in caplog.text
    run = trainer(tmp_path, model, loss=loss, max_steps=3, optim=optim)
    run.train()
    assert not unchanged(run)


def test_row_53_after_a_number_of_them_the_run_ends_with_its_last_good_checkpoint(tmp_path: Path) -> None:
    model = tiny_encoder()
    loss = ScriptedLoss(model, [1.0, 1.0, float("nan")])
    run = trainer(tmp_path, model, loss=loss, max_steps=40, save_strategy="steps", save_steps=2)
    with pytest.raises(FloatingPointError, match=f"in {MAX_SKIPPED_IN_A_ROW} updates in a row"):
        run.train()
    kept = digest(model)
    fresh = tiny_encoder(seed=8)
    again = trainer(tmp_path, fresh, loss=ScriptedLoss(fresh, [1.0]), max_steps=40, save_strategy="steps", save_steps=2)
    again.train(resume_from_checkpoint=tmp_path / "checkpoint-2")
    assert again.state.global_step == 40
    assert all(torch.isfinite(tensor.float()).all() for tensor in kept.values())


def test_row_54_an_infinite_gradient_is_not_clipped_into_nan(tmp_path: Path) -> None:
    model = tiny_encoder()
    loss = ScriptedLoss(model, [float("inf")])
    run = trainer(tmp_path, model, loss=loss, max_steps=3, max_grad_norm=1.0)
    run.train()
    assert unchanged(run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1e-3}, "learning_rate must be >= 0"),
        ({"learning_rate_mapping": {"words": -1e-3}}, "needs rates >= 0"),
        ({"warmup_steps": -1}, "warmup_steps must be >= 0"),
    ],
)
def test_row_55_negative_rates_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **options)


def test_row_55_a_warm_up_longer_than_the_run_and_negative_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="warmup_steps must be at most the 3 updates of the run, got 4"):
        trainer(tmp_path, max_steps=3, warmup_steps=4).train()
    with pytest.raises(ValueError, match="document_regularizer_weight must be >= 0"):
        splade_loss(tiny_encoder(), document_regularizer_weight=-1.0)


def test_row_56_a_collapse_is_told_with_step_and_number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_encoder()
    with torch.no_grad():
        model.project.bias.fill_(-50.0)  # no logit is positive
    with caplog.at_level(logging.WARNING):
        trainer(tmp_path, model, loss=SparseMultipleNegativesRankingLoss, max_steps=2).train()
    assert "step 1: 100% of the queries have no active term" in caplog.text
    assert "step 1: 100% of the documents have no active term" in caplog.text
