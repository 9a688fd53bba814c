"""What losses refuse when they are made: settings that are no numbers, infinite, of a wrong kind, or without effect."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_encoder import losses
from sparse_encoder.losses import checks

Anything = Any  # a setting


class Wide(nn.Module):
    """Hands on what it gets, and tells its width."""

    def get_embedding_dimension(self) -> int:
        return 7

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return features


MODEL = Wide()
RANKING = losses.SparseMultipleNegativesRankingLoss(MODEL)
splade = partial(losses.SpladeLoss, MODEL, RANKING)


class OwnPenalty(nn.Module):
    """A user's regularizer, of no base class of ours."""

    def compute_loss_from_embeddings(self, embeddings: Tensor) -> Tensor:
        return embeddings.sum()


@pytest.mark.parametrize("kind", ["document", "query"])
@pytest.mark.parametrize(
    ("regularizer", "got"),
    [
        ("flops", "str"),
        (RANKING, "SparseMultipleNegativesRankingLoss"),
        (losses.FlopsLoss, "the class FlopsLoss"),
        (losses.JointFlopsLoss(MODEL), "JointFlopsLoss"),
        (nn.Identity(), "Identity"),
    ],
)
def test_what_is_no_regularizer_is_refused(kind: str, regularizer: Anything, got: str) -> None:
    options = {"document_regularizer_weight": 0.1, "query_regularizer_weight": 0.1}
    message = f"^{kind}_regularizer must be a regularizer with compute_loss_from_embeddings.*, got {got}$"
    for build in (losses.SpladeLoss, losses.CachedSpladeLoss):
        with pytest.raises(ValueError, match=message):
            build(MODEL, RANKING, **options, **{f"{kind}_regularizer": regularizer})


def test_a_users_own_regularizer_is_taken() -> None:
    loss = splade(document_regularizer_weight=0.5, document_regularizer=OwnPenalty())
    terms = loss.compute_loss_from_embeddings([torch.ones(2, 7), torch.ones(2, 7)])
    assert terms["document_regularizer_loss"].item() == 7.0


@pytest.mark.parametrize("build", [losses.SpladeLoss, lambda *given: losses.CSRLoss(*given[:2])])
def test_the_class_of_a_ranking_loss_is_refused(build: Callable[..., nn.Module]) -> None:
    with pytest.raises(ValueError, match="loss must be a ranking loss"):
        build(MODEL, losses.SparseMultipleNegativesRankingLoss, 0.1)


@pytest.mark.parametrize(
    ("name", "value"), [("query_regularizer", losses.FlopsLoss(MODEL)), ("query_regularizer_threshold", 3)]
)
def test_a_query_regularizer_without_a_weight_is_refused(name: str, value: Anything) -> None:
    with pytest.raises(ValueError, match=f"^{name} has no effect without a weight: give query_regularizer_weight or "):
        splade(document_regularizer_weight=0.1, **{name: value})
    for weight in ({"query_regularizer_weight": 0.0}, {"target_query_dims": 3}):
        config = splade(document_regularizer_weight=0.1, **weight, **{name: value}).get_config_dict()
        assert (name in config) == (name == "query_regularizer_threshold")
    assert not [key for key in splade(document_regularizer_weight=0.1).get_config_dict() if "query" in key]


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: splade(document_regularizer_weight=math.inf), "document_regularizer_weight"),
        (lambda: splade(document_regularizer_weight=1, query_regularizer_weight=math.inf), "query_regularizer_weight"),
        (lambda: losses.WeightedSumLoss(MODEL, {"a": RANKING}, {"a": math.inf}), "the weight of 'a'"),
        (lambda: losses.CSRLoss(MODEL, beta=math.inf), "beta"),
        (lambda: losses.CSRLoss(MODEL, gamma=math.inf), "gamma"),
        (lambda: losses.FlopsLoss(MODEL, threshold=math.inf), "threshold"),
    ],
)
def test_infinite_weights_are_refused(build: Callable[[], nn.Module], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be >= 0 and finite, got inf$"):
        build()


@pytest.mark.parametrize("kind", ["document", "query"])
def test_a_target_above_the_width_of_the_model_is_refused(kind: str) -> None:
    options: dict[str, Anything] = {} if kind == "document" else {"document_regularizer_weight": 0.1}
    assert splade(**options, **{f"target_{kind}_dims": 7}).weights_in_use()
    with pytest.raises(ValueError, match=f"^target_{kind}_dims must be <= 7, the dimension of the model, got 8$"):
        splade(**options, **{f"target_{kind}_dims": 8})


@pytest.mark.parametrize("name", ["mini_batch_size", "mini_batch_num_tokens"])
@pytest.mark.parametrize("value", [2.5, True, "3"])
def test_the_size_of_mini_batches_is_an_integer(name: str, value: Anything) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be an integer, got {re.escape(repr(value))}$"):
        losses.CachedSpladeLoss(MODEL, RANKING, 0.1, **{name: value})
    with pytest.raises(ValueError, match=f"^{name} must be >= 1, got 0$"):
        losses.CachedSpladeLoss(MODEL, RANKING, 0.1, **{name: 0})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"alpha": "0.1"}, TypeError, "alpha must be a number, got '0.1'"),
        ({"momentum": "x"}, TypeError, "momentum must be a number, got 'x'"),
        ({"momentum": True}, TypeError, "momentum must be a number, got True"),
        ({"num_terms": -3}, ValueError, "num_terms must be >= 1, got -3"),
        ({"num_terms": 3.0}, TypeError, "num_terms must be an integer, got 3.0"),
    ],
)
def test_settings_of_document_frequencies(options: dict[str, Anything], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        losses.DFFlopsLoss(MODEL, **options)


def test_document_frequencies_of_another_width_are_refused() -> None:
    loss = losses.DFFlopsLoss(MODEL, num_terms=5)
    with pytest.raises(ValueError, match=r"counts 5 terms, got embeddings of shape \(3, 7\); set num_terms$"):
        loss.compute_loss_from_embeddings(torch.ones(3, 7))


def test_losses_that_do_not_come_by_name_are_refused() -> None:
    with pytest.raises(TypeError, match="^losses must come by name, as a dict, got list$"):
        losses.WeightedSumLoss(MODEL, [RANKING])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="^weights must come by name, as a dict, got list$"):
        losses.WeightedSumLoss(MODEL, {"a": RANKING}, [1.0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="^losses must come by name, as a dict, got tuple$"):
        losses.WeightedSumRegularizer(MODEL, (losses.FlopsLoss(MODEL),))  # type: ignore[arg-type]


def test_a_text_in_the_place_of_directions_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^directions must be a list of directions, as \['query_to_doc'\], got the"):
        losses.SparseMultipleNegativesRankingLoss(MODEL, directions="query_to_doc")  # type: ignore[arg-type]


def test_half_of_the_hardness_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        losses.SparseMultipleNegativesRankingLoss(MODEL, hardness_strength=2.0)
        losses.SparseMultipleNegativesRankingLoss(MODEL, hardness_mode="all_negatives")
        losses.SparseMultipleNegativesRankingLoss(MODEL, hardness_mode="all_negatives", hardness_strength=2.0)
    assert [record.getMessage() for record in caplog.records] == [
        "hardness_strength=2.0 has no effect without a hardness_mode",
        "hardness_mode='all_negatives' has no effect with hardness_strength=0",
    ]


def columns(count: int) -> list[Tensor]:
    return list(torch.rand(count, 4, 7, generator=torch.Generator().manual_seed(0)).unbind())


BOUNDED: list[tuple[str, int]] = [
    ("SparseLambdaRankLoss", 2),
    ("SparseApproxNDCGLoss", 2),
    ("SparseDistillKLDivLoss", 2),
    ("SparseInBatchDistillKLDivLoss", 8),
]


@pytest.mark.parametrize(("name", "count"), BOUNDED)
def test_infinite_labels_are_refused_and_minus_infinity_stays(name: str, count: int) -> None:
    loss = getattr(losses, name)(MODEL)
    labels = torch.linspace(0, 1, 4 * count).reshape(4, count)
    labels[1, 1] = -math.inf
    for _ in range(2):  # also after the first batch
        assert loss.compute_loss_from_embeddings(columns(3), labels).isfinite()
        labels[2, 0] = math.inf
        with pytest.raises(ValueError, match=f"^the labels of {name}, .*, hold infinity in row 2$"):
            loss.compute_loss_from_embeddings(columns(3), labels)
        labels[2, 0] = 0.5


@pytest.mark.parametrize(("name", "count"), BOUNDED)
def test_infinite_labels_that_nobody_looked_at_come_out(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "is_at_hand", lambda _: False)  # as on an accelerator
    loss = getattr(losses, name)(MODEL)
    labels = torch.linspace(0, 1, 4 * count).reshape(4, count)
    loss.compute_loss_from_embeddings(columns(3), labels)  # the first batch is looked at in any case
    labels[2, 0] = math.inf
    assert loss.compute_loss_from_embeddings(columns(3), labels).isnan()


def test_an_infinite_teacher_is_refused_at_the_first_batch_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "is_at_hand", lambda _: False)
    labels = torch.tensor([[1.0, math.inf]] * 4)
    with pytest.raises(ValueError, match="hold infinity; -inf is what takes a document out"):
        losses.SparseDistillKLDivLoss(MODEL).compute_loss_from_embeddings(columns(3), labels)
