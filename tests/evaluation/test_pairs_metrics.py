from __future__ import annotations

from math import isnan, log2, sqrt

import numpy as np
import pytest

from sparse_encoder.evaluation.pairs_metrics import (
    average_precision,
    best_accuracy,
    best_f1,
    matthews_correlation,
    pearson,
    spearman,
)
from sparse_encoder.evaluation.scored_metrics import ndcg, reciprocal_rank

SCORES = np.array([0.9, 0.1, 0.5, 0.5, 0.3], dtype=np.float32)
LABELS = np.array([1, 0, 1, 0, 1])
# Best first: 0.9 yes | 0.5 yes and no | 0.3 yes | 0.1 no


def test_the_best_accuracy() -> None:
    # nothing positive: 2 of 5; above 0.7: 3; above 0.4: 3; above 0.2: 4; all: 3
    assert best_accuracy(SCORES, LABELS) == pytest.approx((4 / 5, 0.2), abs=1e-6)
    assert best_accuracy(-SCORES, LABELS, higher_is_positive=False) == pytest.approx((4 / 5, -0.2), abs=1e-6)
    nothing, beyond = best_accuracy(SCORES, np.zeros(5, dtype=np.int64))
    assert nothing == 1.0
    assert beyond == np.nextafter(np.float32(0.9), np.float32(np.inf))
    assert best_accuracy(SCORES, np.ones(5, dtype=np.int64)) == (1.0, np.float32(0.1))


def test_the_best_f1() -> None:
    # above 0.7: 1 of 1, 1 of 3; above 0.4: 2 of 3, 2 of 3; above 0.2: 3 of 4, 3 of 3
    assert best_f1(SCORES, LABELS) == pytest.approx((2 * 0.75 / 1.75, 0.75, 1.0, 0.2), abs=1e-6)
    assert best_f1(-SCORES, LABELS, higher_is_positive=False).threshold == pytest.approx(-0.2)
    assert best_f1(SCORES, np.zeros(5, dtype=np.int64)) == (0, 0, 0, 0)


def test_the_cut_between_neighbours_is_the_upper_one() -> None:
    upper = np.float32(1.0)
    scores = np.array([upper, np.nextafter(upper, np.float32(0))], dtype=np.float32)
    threshold = best_accuracy(scores, np.array([1, 0])).threshold
    assert list(scores >= threshold) == [True, False]


def test_average_precision_of_equal_scores() -> None:
    assert average_precision(SCORES, LABELS) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert average_precision(SCORES, np.zeros(5, dtype=np.int64)) == 0


def test_correlations() -> None:
    assert pearson(np.array([1.0, 2, 3]), np.array([2.0, 4, 7])) == pytest.approx(5 / sqrt(2 * 38 / 3))
    assert spearman(np.array([1.0, 2, 9]), np.array([0.0, 5, 6])) == pytest.approx(1)
    assert spearman(np.array([1.0, 1, 2]), np.array([1.0, 2, 3])) == pytest.approx(1.5 / sqrt(1.5 * 2))
    for metric in (pearson, spearman):
        assert isnan(metric(np.ones(3), np.array([1.0, 2, 3])))
        assert isnan(metric(np.array([1.0, 2, 3]), np.zeros(3)))
        assert isnan(metric(np.array([1.0]), np.array([2.0])))


def test_matthews_correlation() -> None:
    assert matthews_correlation(np.array([1, 1, 0, 0, 1]), LABELS) == pytest.approx(
        (2 * 1 - 1 * 1) / sqrt(3 * 3 * 2 * 2)
    )
    assert matthews_correlation(LABELS, LABELS) == pytest.approx(1)
    assert matthews_correlation(np.ones(5, dtype=np.int64), LABELS) == 0


def test_the_rank_of_the_first_relevant_candidate() -> None:
    assert reciprocal_rank(SCORES, LABELS, 1) == 1
    late = np.array([0, 0, 0, 1, 1])
    assert [reciprocal_rank(SCORES, late, k) for k in (1, 2, 3)] == [0, 0, 1 / 3]  # 0.5 is twice, the first is another
    assert reciprocal_rank(SCORES, np.array([0, 1, 0, 0, 0]), 10) == 1 / 5


def test_candidates_of_equal_score_share_their_places() -> None:
    shared = (1 / log2(3) + 1 / 2) / 2
    best = 1 + 1 / log2(3) + 1 / 2
    assert ndcg(SCORES, LABELS, 10) == pytest.approx((1 + shared + 1 / log2(5)) / best)
    assert ndcg(SCORES, LABELS, 2) == pytest.approx((1 + 1 / log2(3) / 2) / (1 + 1 / log2(3)))
    order = np.array([3, 4, 0, 2, 1])
    assert ndcg(SCORES[order], LABELS[order], 10) == pytest.approx(ndcg(SCORES, LABELS, 10))
    assert ndcg(SCORES, np.zeros(5, dtype=np.int64), 3) == 0
    assert ndcg(np.array([2.0, 1.0]), np.array([1, 3]), 5) == pytest.approx((1 + 3 / log2(3)) / (3 + 1 / log2(3)))
