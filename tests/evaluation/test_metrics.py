from __future__ import annotations

from math import log2

import pytest

from sparse_encoder.evaluation.cutoffs import Cutoffs
from sparse_encoder.evaluation.metrics import (
    accuracy_at_k,
    average_precision_at_k,
    judge,
    ndcg_at_k,
    precision_at_k,
    recall_at_k,
    reciprocal_rank_at_k,
)

RANKED = ["a", "b", "c", "d", "e"]
RELEVANT = {"b", "d", "x"}  # at ranks 2 and 4; x was not found


@pytest.mark.parametrize(
    ("metric", "expected"),  # at 1, 2, 4, 10
    [
        (accuracy_at_k, [0, 1, 1, 1]),
        (precision_at_k, [0, 1 / 2, 2 / 4, 2 / 10]),
        (recall_at_k, [0, 1 / 3, 2 / 3, 2 / 3]),
        (reciprocal_rank_at_k, [0, 1 / 2, 1 / 2, 1 / 2]),
        (average_precision_at_k, [0, 1 / 2 / 2, (1 / 2 + 2 / 4) / 3, (1 / 2 + 2 / 4) / 3]),
        (
            ndcg_at_k,
            [
                0,
                (1 / log2(3)) / (1 + 1 / log2(3)),
                (1 / log2(3) + 1 / log2(5)) / (1 + 1 / log2(3) + 1 / 2),
                (1 / log2(3) + 1 / log2(5)) / (1 + 1 / log2(3) + 1 / 2),
            ],
        ),
    ],
)
def test_by_hand(metric: object, expected: list[float]) -> None:
    assert callable(metric)
    assert [metric(RANKED, RELEVANT, k) for k in (1, 2, 4, 10)] == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    "metric", [accuracy_at_k, recall_at_k, reciprocal_rank_at_k, average_precision_at_k, ndcg_at_k]
)
def test_the_best_ranking_scores_one_and_the_empty_one_zero(metric: object) -> None:
    assert callable(metric)
    assert metric(["d", "x", "b", "a"], RELEVANT, 3) == pytest.approx(1)
    assert metric([], RELEVANT, 3) == 0


def test_grades_are_the_gains_of_ndcg() -> None:
    grades = {"b": 3.0, "d": 1.0, "x": 2.0}
    expected = (3 / log2(3) + 1 / log2(5)) / (3 + 2 / log2(3) + 1 / 2)
    assert ndcg_at_k(RANKED, grades, 10) == pytest.approx(expected)
    assert ndcg_at_k(RANKED, grades, 2) == pytest.approx((3 / log2(3)) / (3 + 2 / log2(3)))
    assert ndcg_at_k(RANKED, dict.fromkeys(RELEVANT, 2.0), 4) == pytest.approx(ndcg_at_k(RANKED, RELEVANT, 4))
    for metric in (accuracy_at_k, precision_at_k, recall_at_k, reciprocal_rank_at_k, average_precision_at_k):
        assert metric(RANKED, grades, 4) == metric(RANKED, RELEVANT, 4)


def cutoffs(**changes: tuple[int, ...]) -> Cutoffs:
    return Cutoffs(**({"accuracy": (1,), "precision_recall": (2, 5), "mrr": (10,), "ndcg": (4,), "map": ()} | changes))


def test_means_over_queries() -> None:
    scores = cutoffs().measure([RANKED, ["x"]], [RELEVANT, {"x", "y"}])
    assert scores == {
        "accuracy@k": {1: 0.5},
        "precision@k": {2: 0.5, 5: pytest.approx((2 / 5 + 1 / 5) / 2)},
        "recall@k": {2: pytest.approx((1 / 3 + 1 / 2) / 2), 5: pytest.approx((2 / 3 + 1 / 2) / 2)},
        "ndcg@k": {4: pytest.approx((ndcg_at_k(RANKED, RELEVANT, 4) + 1 / (1 + 1 / log2(3))) / 2)},
        "mrr@k": {10: 0.75},
        "map@k": {},
    }
    assert cutoffs().columns("dot") == [
        "dot-Accuracy@1",
        "dot-Precision@2",
        "dot-Recall@2",
        "dot-Precision@5",
        "dot-Recall@5",
        "dot-MRR@10",
        "dot-NDCG@4",
    ]
    assert cutoffs().row(scores)[:3] == [0.5, 0.5, pytest.approx((1 / 3 + 1 / 2) / 2)]
    assert cutoffs().deepest == 10


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_a_rank_that_is_none_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="every k must be an integer from 1 up"):
        cutoffs(map=(k,))


def test_the_primary_metric_needs_a_rank() -> None:
    with pytest.raises(ValueError, match="ndcg_at_k must not be empty"):
        cutoffs(ndcg=())


def test_a_ranking_is_compared_once_for_all_metrics() -> None:
    judged = judge(["x", "b", "y", "d"], {"b": 3.0, "d": 1.0, "e": 2.0})
    assert judged == ([(2, 3.0), (4, 1.0)], [3.0, 2.0, 1.0])
    assert judge(["b"], ["b", "e"]) == ([(1, 1.0)], [1.0, 1.0])
