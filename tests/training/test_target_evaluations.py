"""Evaluation losses where a regularizer's weight finds its own way."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn
from training_helpers import Anything, pairs, tiny_encoder, trainer

from sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss

DOCUMENTS = {"target_document_dims": 4.0}
BOTH = {**DOCUMENTS, "target_query_dims": 3.0}


def loss_with(model: nn.Module, settings: dict[str, Anything]) -> SpladeLoss:
    return SpladeLoss(model, SparseMultipleNegativesRankingLoss(model), **settings)


def test_losses_of_a_model_that_stands_still_are_the_same_while_the_weights_move(tmp_path: Path) -> None:
    model = tiny_encoder()
    loss = loss_with(model, BOTH)
    evaluated = {"eval_dataset": pairs(8), "eval_strategy": "steps", "eval_steps": 1, "max_steps": 4}
    run = trainer(tmp_path, model, loss=loss, learning_rate=0.0, **evaluated)
    run.train()
    trained = [row["document_regularizer_loss"] for row in run.state.log_history if "loss" in row]
    assert trained[-1] != trained[0] and float(loss.document_target.weight) > 0
    rows = [row for row in run.state.log_history if "eval_loss" in row]
    assert len(rows) == 4 and len({row["eval_loss"] for row in rows}) == 1
    assert all(row["eval_loss"] == row["eval_base_loss"] for row in rows)
    assert not any("eval_document_regularizer_loss" in row or "eval_query_regularizer_loss" in row for row in rows)


@torch.no_grad()
def test_a_weight_that_is_given_counts_beside_a_target() -> None:
    rows = [torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([[2.0, 2.0], [0.0, 2.0]])]
    loss = loss_with(nn.Identity(), {**DOCUMENTS, "query_regularizer_weight": 0.25})
    assert "document_regularizer_loss" in loss.compute_loss_from_embeddings(rows)
    terms = loss.eval().compute_loss_from_embeddings(rows)
    assert set(terms) == {"base_loss", "query_regularizer_loss"}
    assert terms["query_regularizer_loss"].item() == 0.25 * 2.0**2
    assert set(loss_with(nn.Identity(), BOTH).eval().compute_loss_from_embeddings(rows)) == {"base_loss"}


@pytest.mark.parametrize(
    ("settings", "metric", "told"),
    [
        (BOTH, None, "target_document_dims and target_query_dims"),
        (DOCUMENTS, "eval_loss", "what target_document_dims of"),
        (DOCUMENTS, "dot_ndcg@10", None),
        ({"document_regularizer_weight": 3e-3}, None, None),
    ],
)
def test_choosing_a_model_by_such_a_loss_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, settings: Anything, metric: str | None, told: str | None
) -> None:
    model = tiny_encoder()
    steps = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    best = {"load_best_model_at_end": True, "metric_for_best_model": metric}
    options = {"loss": loss_with(model, settings), "eval_dataset": pairs(4)}
    if metric == "dot_ndcg@10":
        options["evaluator"] = lambda model, **_: {"dot_ndcg@10": 0.5}
    with caplog.at_level(logging.WARNING):
        trainer(tmp_path, model, **options, **steps, **best).train()
    warned = [message for message in caplog.messages if "metric_for_best_model" in message]
    assert len(warned) == (told is not None)
    assert told is None or told in warned[0]
