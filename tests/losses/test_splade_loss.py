from __future__ import annotations

import logging
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_encoder.losses import (
    CSRLoss,
    CSRReconstructionLoss,
    EmbeddingLoss,
    FlopsLoss,
    LossValue,
    Regularizer,
    SpladeLoss,
)

QUERIES = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
POSITIVES = torch.tensor([[2.0, 2.0], [0.0, 2.0]])
NEGATIVES = torch.tensor([[0.0, 4.0], [2.0, 0.0]])


class Given(EmbeddingLoss):
    """Returns what it was given."""

    def __init__(self, value: Tensor | dict[str, Tensor]) -> None:
        super().__init__(nn.Identity())
        self.value = value

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> LossValue:
        return self.value if labels is None else labels.sum()

    def get_config_dict(self) -> dict[str, Any]:
        return {}


class Total(Regularizer):
    """Adds everything up."""

    def compute_loss_from_embeddings(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        return embeddings.sum()

    def get_config_dict(self) -> dict[str, Any]:
        return {}


def splade(base: Tensor | dict[str, Tensor] | None = None, **options: object) -> SpladeLoss:
    settings: dict[str, Any] = {"document_regularizer_weight": 0.5, "query_regularizer_weight": 0.25} | options
    return SpladeLoss(nn.Identity(), Given(torch.tensor(7.0) if base is None else base), **settings)


def test_the_terms_by_hand() -> None:
    terms = splade().compute_loss_from_embeddings([QUERIES, POSITIVES, NEGATIVES])
    # queries: means 2 and 0, squares 4. documents, four rows: means 1 and 2, squares 1 + 4.
    assert {name: value.item() for name, value in terms.items()} == {
        "base_loss": 7.0,
        "document_regularizer_loss": 2.5,
        "query_regularizer_loss": 1.0,
    }
    assert list(terms) == ["base_loss", "document_regularizer_loss", "query_regularizer_loss"]


def test_no_query_weight_no_query_term() -> None:
    terms = splade(query_regularizer_weight=None).compute_loss_from_embeddings([QUERIES, POSITIVES])
    assert set(terms) == {"base_loss", "document_regularizer_loss"}


def test_all_columns_as_documents_by_hand(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        loss = splade(use_document_regularizer_only=True)
    assert "query_regularizer_weight is not used" in caplog.text
    assert loss.query_regularizer_weight is None
    terms = loss.compute_loss_from_embeddings([QUERIES, POSITIVES])
    assert terms["document_regularizer_loss"].item() == 0.5 * (1.5**2 + 1.0**2)  # means over four rows: 1.5 and 1
    assert set(terms) == {"base_loss", "document_regularizer_loss"}


def test_terms_of_the_base_loss_keep_their_names() -> None:
    terms = splade({"a": torch.tensor(1.0), "b": torch.tensor(2.0)}).compute_loss_from_embeddings([QUERIES, POSITIVES])
    assert list(terms) == ["a", "b", "document_regularizer_loss", "query_regularizer_loss"]


def test_labels_reach_the_base_loss() -> None:
    terms = splade().compute_loss_from_embeddings([QUERIES, POSITIVES], torch.tensor([20.0, 22.0]))
    assert terms["base_loss"].item() == 42.0


def test_own_regularizers_and_thresholds() -> None:
    loss = splade(document_regularizer=Total(nn.Identity()), query_regularizer_threshold=1)
    terms = loss.compute_loss_from_embeddings([QUERIES, POSITIVES])
    assert terms["document_regularizer_loss"].item() == 0.5 * 6.0
    assert terms["query_regularizer_loss"].item() == 0.0  # each query has one active term
    assert isinstance(loss.query_regularizer, FlopsLoss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"document_regularizer_weight": -1.0}, "document_regularizer_weight must be >= 0"),
        ({"query_regularizer_weight": float("nan")}, "query_regularizer_weight must be >= 0"),
        ({"document_regularizer": Total(nn.Identity()), "document_regularizer_threshold": 3}, "default FlopsLoss"),
        ({"use_document_regularizer_only": True, "query_regularizer_threshold": 3}, "nothing for a query regularizer"),
    ],
)
def test_contradictions_are_refused_at_construction(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        splade(**options)


class NoMethod(nn.Module):
    """Has a number where a method should be."""

    compute_loss_from_embeddings = 3


@pytest.mark.parametrize(
    "base", [nn.Identity(), FlopsLoss(nn.Identity()), CSRReconstructionLoss(nn.Identity()), NoMethod()]
)
def test_a_base_that_does_not_rank_is_refused(base: Any) -> None:  # noqa: ANN401  (what is no loss)
    for build in (lambda: SpladeLoss(nn.Identity(), base, 1.0), lambda: CSRLoss(nn.Identity(), base)):
        with pytest.raises(ValueError, match=f"must be a ranking loss .*, got {type(base).__name__}$"):
            build()


def test_a_batch_without_documents_is_refused() -> None:
    with pytest.raises(ValueError, match="a query column and document columns, got 1"):
        splade().compute_loss_from_embeddings([QUERIES])


def test_weights_can_be_scheduled() -> None:
    loss = splade()
    loss.document_regularizer_weight = 0.0
    assert loss.compute_loss_from_embeddings([QUERIES, POSITIVES])["document_regularizer_loss"].item() == 0.0


def test_model_card_settings() -> None:
    loss = splade(document_regularizer=Total(nn.Identity()), query_regularizer_threshold=4)
    assert loss.get_config_dict() == {
        "loss": loss.loss,
        "document_regularizer_weight": 0.5,
        "query_regularizer_weight": 0.25,
        "document_regularizer": "Total",
        "query_regularizer_threshold": 4,
    }
    assert "2205.04733" in loss.citation


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("document_regularizer_weight", "x"),
        ("document_regularizer_weight", True),
        ("query_regularizer_weight", "x"),
        ("query_regularizer_weight", [1.0]),
    ],
)
def test_a_weight_that_is_not_a_number_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be a number, got {re.escape(repr(value))}$"):
        splade(**{name: value})


@pytest.mark.parametrize("name", ["document_regularizer_threshold", "query_regularizer_threshold"])
def test_a_threshold_that_is_not_a_number_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match="threshold must be a number, got 'x'"):
        splade(**{name: "x"})
