"""Measures of scored candidates of one query, some of them relevant; knows no ids and no texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparse_encoder.evaluation.pairs_metrics import Labels, Scores


def reciprocal_rank(scores: Scores, relevant: Labels, k: int) -> float:
    """Return 1 / rank of the best relevant candidate, 0 if none is among the first k; of equal scores the first wins.

    Args:
        scores: (N).
        relevant: 1 or 0, (N).
        k: How many candidates count.
    """
    order = np.argsort(-scores, kind="stable")[:k]
    ranks = np.flatnonzero(relevant[order])
    return 1 / (int(ranks[0]) + 1) if len(ranks) else 0.0


def ndcg(scores: Scores, relevant: Labels, k: int) -> float:
    """Return the discounted gain of the first k candidates as a share of the best possible one.

    Candidates of equal score share the discounts of their places, so that their order in the list does not matter.
    Without a relevant candidate it is 0.

    Source: McSherry and Najork, 2008, https://doi.org/10.1007/978-3-540-78646-7_38.

    Args:
        scores: (N).
        relevant: Gain of each, not negative, (N).
        k: How many places count.
    """
    discounts: NDArray[np.float64] = 1 / np.log2(np.arange(len(scores)) + 2)
    discounts[k:] = 0
    ideal = float(np.sort(relevant)[::-1] @ discounts)
    if not ideal:
        return 0.0
    _, group, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    gains = np.bincount(group, weights=relevant) / sizes
    ends = np.cumsum(discounts)[np.cumsum(sizes) - 1]
    return float(gains @ np.diff(ends, prepend=0)) / ideal
