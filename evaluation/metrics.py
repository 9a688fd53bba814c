"""Measures of one ranking, from the ids it has and the ids that are relevant; knows no model and no scores.

In all of them ``ranked`` holds document ids, best first, ``relevant`` is not empty, and only the first ``k`` documents
count. Relevance is yes or no but for nDCG, where ``relevant`` may also be positive grades by id.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from math import log2


def accuracy_at_k(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """Return 1 if any of the first k documents is relevant, else 0; also called success or hit rate."""
    return float(any(document in relevant for document in ranked[:k]))


def precision_at_k(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """Return the relevant share of k places, also when fewer documents were found."""
    return sum(document in relevant for document in ranked[:k]) / k


def recall_at_k(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """Return the share of the relevant documents that is among the first k."""
    return sum(document in relevant for document in ranked[:k]) / len(relevant)


def reciprocal_rank_at_k(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """Return 1 / rank of the first relevant document, 0 if there is none among the first k."""
    ranks = (rank for rank, document in enumerate(ranked[:k], start=1) if document in relevant)
    return 1 / next(ranks, float("inf"))


def ndcg_at_k(ranked: Sequence[Hashable], relevant: Collection[Hashable] | Mapping[Hashable, float], k: int) -> float:
    r"""Return the discounted gain as a share of the best possible one.

    .. math:: \frac{\sum_{r \le k} g(d_r) / \log_2(r + 1)}{\sum_{r \le k} g^*_r / \log_2(r + 1)}

    where the gain of a document is its grade, 1 without grades, and :math:`g^*` are all grades, the best first. This is
    the nDCG of ``trec_eval`` and of BEIR; others take :math:`2^g - 1` for the gain.

    Source: Järvelin and Kekäläinen, 2002, https://doi.org/10.1145/582415.582418.
    """
    grades: Mapping[Hashable, float] = relevant if isinstance(relevant, Mapping) else dict.fromkeys(relevant, 1.0)
    gain: float = sum(
        grades[document] / log2(rank + 1) for rank, document in enumerate(ranked[:k], 1) if document in grades
    )
    best = sorted(grades.values(), reverse=True)[:k]
    return gain / sum(grade / log2(rank + 1) for rank, grade in enumerate(best, 1))


def average_precision_at_k(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """Return the precision at each relevant document among the first k, added up and divided by min(k, |relevant|)."""
    ranks = [rank for rank, document in enumerate(ranked[:k], start=1) if document in relevant]
    return sum(found / rank for found, rank in enumerate(ranks, start=1)) / min(k, len(relevant))
