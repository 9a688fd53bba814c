from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_helpers import Anything, TinyEncoder, pairs, trainer

from sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
from sparse_encoder.training import SparsityMonitorCallback
from sparse_encoder.training.events.sparsity_advice import advice_for, targets_of

TARGETS = {"queries": 3.0, "documents": 5.5}


class Fixed(TinyEncoder):
    """An encoder that activates a part of the vocabulary, whatever the text."""

    def __init__(self, active: int) -> None:
        super().__init__()
        self.active = active

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        weights: Tensor = super().forward(features)["sentence_embedding"] + 1.0
        return {**features, "sentence_embedding": weights * (torch.arange(weights.shape[1]) < self.active)}


def told(folder: Path, caplog: pytest.LogCaptureFixture, active: int, settings: dict[str, Anything]) -> list[str]:
    model = Fixed(active)
    loss = SpladeLoss(model, SparseMultipleNegativesRankingLoss(model), **settings)
    monitor = SparsityMonitorCallback()
    with caplog.at_level(logging.WARNING):
        trainer(folder, model, rows=pairs(8), loss=loss, callbacks=[monitor], max_steps=6).train()
    return [each.getMessage() for each in caplog.records if each.name.endswith("events.sparsity")]


@pytest.mark.parametrize("active", [0, 16])
def test_a_target_is_what_is_to_be_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture, active: int) -> None:
    queries, documents = told(tmp_path, caplog, active, {"target_query_dims": 3, "target_document_dims": 5})
    change = "ower" if active else "raise"
    assert f"{change} target_query_dims, which is 3" in queries and "_weight" not in queries
    assert f"{change} target_document_dims, which is 5" in documents and "_weight" not in documents


def test_each_kind_of_text_has_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    queries, documents = told(tmp_path, caplog, 16, {"target_document_dims": 5, "query_regularizer_weight": 1e-3})
    assert "Raise query_regularizer_weight, or train longer after its warm-up" in queries
    assert "Lower target_document_dims, which is 5, or train longer" in documents


def test_advice_by_kind_of_text_and_by_what_weighs() -> None:
    assert advice_for("queries", {}).stronger == "Raise query_regularizer_weight"
    assert advice_for("documents", {"queries": 3.0}).stronger == "Raise document_regularizer_weight"
    assert advice_for("texts", {}).stronger == "Raise the regularizers' weights"
    assert advice_for("documents", TARGETS).stronger == "Lower target_document_dims, which is 5.5"
    both = "target_query_dims, which is 3 and target_document_dims, which is 5.5"
    assert both in advice_for("texts", TARGETS).too_few
    assert advice_for("queries", {}).dead.startswith("Lower query_regularizer_weight, or add AntiZeroLoss")
    assert advice_for("queries", TARGETS).dead.startswith("Raise target_query_dims, which is 3, or add AntiZeroLoss")


def test_targets_of_losses_by_dataset() -> None:
    model = nn.Identity()
    ranking = SparseMultipleNegativesRankingLoss(model)
    first = SpladeLoss(model, ranking, target_document_dims=5.5)
    second = SpladeLoss(model, ranking, target_document_dims=9, target_query_dims=3)
    assert targets_of(nn.ModuleDict({"a": first, "b": second})) == TARGETS
    assert targets_of(ranking) == targets_of(None) == {}
