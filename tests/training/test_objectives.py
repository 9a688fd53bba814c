"""Which model a loss runs, and what a loss may return."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_helpers import TinyEncoder, pairs, splade_loss, tiny_encoder, trainer

from sparse_encoder.losses import EmbeddingLoss, SpladeLoss
from sparse_encoder.training.objectives import checked_terms, put_model_into_loss

Anything = Any  # what a loss returns


class Holder(nn.Module):
    """An encoder whose own part is called model, as the library's Transformer has one."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(3, 3)

    def preprocess(self, texts: list[str]) -> dict[str, Any]:
        return {}


class Taught(EmbeddingLoss):
    """A loss that knows its model by two names, and a teacher."""

    def __init__(self, model: nn.Module, teacher: nn.Module) -> None:
        super().__init__(model)
        self.encoder, self.teacher = model, teacher

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        return torch.stack([each.mean() for each in embeddings]).sum()

    def get_config_dict(self) -> dict[str, Any]:
        return {}


def test_only_the_losses_model_is_replaced() -> None:
    model, teacher, wrapped = Holder(), Holder(), nn.Sequential(nn.Identity())
    inner, of_teacher = model.model, teacher.model
    outer = SpladeLoss(model, loss=Taught(model, teacher), document_regularizer_weight=1.0)
    put_model_into_loss(outer, wrapped)
    assert outer.model is outer.loss.model is outer.document_regularizer.model is wrapped
    assert outer.loss.encoder is model
    assert model.model is inner
    assert teacher.model is of_teacher
    put_model_into_loss(outer, model, [wrapped])
    assert outer.model is outer.loss.model is model


def test_a_dataset_may_be_called_model(tmp_path: Path) -> None:
    model = tiny_encoder()
    losses = {"model": splade_loss(model), "other": splade_loss(model)}
    given = trainer(tmp_path, model, rows={"model": pairs(6), "other": pairs(6)}, loss=losses, num_train_epochs=1)
    before = len(list(given.objective.parameters()))
    given.train()
    assert len(list(given.objective.parameters())) == before
    assert given.objective.get_submodule("model") is losses["model"]


def test_a_loss_made_by_a_function_depends_on_the_seed_alone(tmp_path: Path) -> None:
    class Scaled(EmbeddingLoss):
        def __init__(self, model: nn.Module) -> None:
            super().__init__(model)
            self.scale = nn.Parameter(torch.rand(3))

        def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
            return embeddings[0].mean() * self.scale.sum()

        def get_config_dict(self) -> dict[str, Any]:
            return {}

    scales = []
    for _ in range(2):
        torch.rand(3)
        scales.append(trainer(tmp_path, TinyEncoder(), loss=Scaled).loss.scale)
    assert torch.equal(*scales)


def test_a_term_may_be_called_loss(tmp_path: Path) -> None:
    class Two(EmbeddingLoss):
        def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Anything:
            return {"loss": embeddings[0].mean(), "aux": embeddings[1].mean()}

        def get_config_dict(self) -> dict[str, Any]:
            return {}

    given = trainer(tmp_path, loss=Two, max_steps=1)
    given.train()
    row = given.state.log_history[0]
    assert row["loss"] == pytest.approx(row["loss_term"] + row["aux"])


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ((torch.tensor(1.0), None), TypeError, "Linear must return a scalar tensor or a dict of them, got tuple"),
        ({}, ValueError, "at least one term"),
        ({"a": 1.0}, TypeError, "got float for 'a'"),
        ({"a": torch.ones(3)}, ValueError, r"got a tensor \(3,\) for 'a'"),
        (torch.ones(2), ValueError, r"got a tensor \(2,\)"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_what_a_loss_may_not_return_is_named(value: Anything, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        checked_terms(value, nn.Linear(1, 1))
