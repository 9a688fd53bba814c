from __future__ import annotations

import logging
from functools import partial
from math import exp, log
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_encoder.losses import SparseMultipleNegativesRankingLoss

QUERIES = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
POSITIVES = torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 0.0]], dtype=torch.float64)
NEGATIVES = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 1.0]], dtype=torch.float64)
# dot products:      p0 p1 n0 n1      q0 q1      of p0: p0 p1 n0 n1    of p1: p0 p1 n0 n1
#   of q0:            3  0  0  4       5  2               3  2  1  3          2  4  2  0
#   of q1:            2  2  1  1       2  2


def loss_of(*columns: Tensor, **options: object) -> float:
    settings: dict[str, Any] = options
    return float(SparseMultipleNegativesRankingLoss(nn.Identity(), **settings).compute_loss_from_embeddings([*columns]))


def log_sum(*scores: float) -> float:
    return log(sum(exp(score) for score in scores))


def test_pairs_by_hand() -> None:
    expected = ((log_sum(3, 0) - 3) + (log_sum(2, 2) - 2)) / 2
    assert loss_of(QUERIES, POSITIVES) == pytest.approx(expected, rel=1e-12)


def test_hard_negatives_and_scale_by_hand() -> None:
    expected = ((log_sum(6, 0, 0, 8) - 6) + (log_sum(4, 4, 2, 2) - 4)) / 2
    assert loss_of(QUERIES, POSITIVES, NEGATIVES, scale=2.0) == pytest.approx(expected, rel=1e-12)


def test_all_directions_jointly_by_hand() -> None:
    directions = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
    first = log_sum(3, 0, 0, 4, 2, 3, 2, 2, 3)  # documents; the other query; p0 with queries; p0 with p1 and n1
    second = log_sum(2, 2, 1, 1, 2, 0, 2, 2, 2)  # documents; the other query; p1 with queries; p1 with p0 and n0
    expected = ((first - 3) + (second - 2)) / 2
    assert loss_of(QUERIES, POSITIVES, NEGATIVES, directions=directions) == pytest.approx(expected, rel=1e-12)


def test_one_softmax_per_direction_by_hand() -> None:
    directions = ("query_to_doc", "doc_to_query")
    first = (log_sum(3, 0) + log_sum(3, 2)) / 2
    second = (log_sum(2, 2) + log_sum(0, 2)) / 2
    expected = ((first - 3) + (second - 2)) / 2
    options = {"directions": directions, "partition_mode": "per_direction"}
    assert loss_of(QUERIES, POSITIVES, **options) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("mode", "first", "second"),
    [
        ("in_batch_negatives", (3, 0, 0, 6), (3, 2, 1.5, 1)),
        ("hard_negatives", (3, 0, 0, 4), (2, 2, 1, 1.5)),
        ("all_negatives", (3, 0, 0, 6), (3, 2, 1.5, 1.5)),
    ],
)
def test_hardness_by_hand(mode: str, first: tuple[float, ...], second: tuple[float, ...]) -> None:
    expected = ((log_sum(*first) - 3) + (log_sum(*second) - 2)) / 2
    found = loss_of(QUERIES, POSITIVES, NEGATIVES, hardness_mode=mode, hardness_strength=0.5)
    assert found == pytest.approx(expected, rel=1e-12)


def test_hardness_is_a_constant_for_the_gradient() -> None:
    # The added term multiplies the gradient of no similarity: only its share in the softmax changes.
    queries = QUERIES.clone().requires_grad_()
    loss = SparseMultipleNegativesRankingLoss(nn.Identity(), hardness_mode="all_negatives", hardness_strength=0.5)
    loss.compute_loss_from_embeddings([queries, POSITIVES]).backward()
    share = torch.tensor([[3.0, 0.0], [3.0, 2.0]], dtype=torch.float64).softmax(dim=1)
    expected = (share @ POSITIVES - POSITIVES) / 2
    torch.testing.assert_close(queries.grad, expected, rtol=1e-12, atol=1e-12)


def test_gradcheck() -> None:
    loss = SparseMultipleNegativesRankingLoss(
        nn.Identity(), directions=("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
    )
    columns = [column.clone().requires_grad_() for column in (QUERIES, POSITIVES, NEGATIVES)]
    assert torch.autograd.gradcheck(lambda *c: loss.compute_loss_from_embeddings([*c]), columns)


def test_the_similarity_is_the_callers() -> None:
    found = loss_of(QUERIES, POSITIVES, similarity_fct=lambda a, b: a.new_zeros(len(a), len(b)))
    assert found == pytest.approx(log(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.0}, "scale must be > 0"),
        ({"scale": float("nan")}, "scale must be > 0"),
        ({"directions": ()}, "must contain 'query_to_doc'"),
        ({"directions": ("doc_to_doc",)}, "must contain 'query_to_doc'"),
        ({"directions": ("query_to_doc", "up")}, r"unknown directions \['up'\]"),
        ({"partition_mode": "both"}, "unknown partition_mode 'both'"),
        ({"directions": ("query_to_doc", "doc_to_doc"), "partition_mode": "per_direction"}, "need partition_mode"),
        ({"hardness_mode": "all"}, "unknown hardness_mode 'all'"),
        ({"hardness_mode": "all_negatives", "hardness_strength": -1.0}, "hardness_strength must be >= 0"),
    ],
)
def test_bad_options_are_refused_at_construction(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseMultipleNegativesRankingLoss(nn.Identity(), **options)


def test_bad_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 columns"):
        loss_of(QUERIES)
    with pytest.raises(ValueError, match="one shape"):
        loss_of(QUERIES, POSITIVES[:1])


def test_a_mode_without_strength_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        SparseMultipleNegativesRankingLoss(nn.Identity(), hardness_mode="all_negatives")
    assert "no effect with hardness_strength=0" in caplog.text


def test_model_card_settings() -> None:
    def shifted(a: Tensor, b: Tensor, by: float) -> Tensor:
        return a @ b.mT + by

    loss = SparseMultipleNegativesRankingLoss(nn.Identity(), scale=20.0, similarity_fct=partial(shifted, by=2.0))
    assert loss.temperature == 0.05
    assert loss.get_config_dict() == {
        "scale": 20.0,
        "similarity_fct": "shifted(by=2.0)",
        "gather_across_devices": False,
        "directions": ("query_to_doc",),
        "partition_mode": "joint",
        "hardness_mode": None,
        "hardness_strength": 0.0,
    }
    assert SparseMultipleNegativesRankingLoss(nn.Identity()).get_config_dict()["similarity_fct"] == "dot_score"
    assert "1807.03748" in loss.citation
