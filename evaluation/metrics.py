"""Measures of one ranking, from the ids it has and the ids that are relevant; knows no model and no scores.

In all of them ``ranked`` holds document ids, best first, ``relevant`` is not empty, and only the first ``k`` documents
count. Relevance is yes or no but for nDCG, where ``relevant`` may also be positive grades by id. Whoever measures a
ranking in several ways compares it once with what is relevant, by :func:`judge`, and asks the functions without
``_at_k``.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from math import log2
from typing import NamedTuple


class Judged(NamedTuple):
    """A ranking of one query, as far as it matters."""

    hits: list[tuple[int, float]]
    """Rank, from 1, and gain of the relevant documents that were found, best first."""
    gains: list[float]
    """Of all relevant documents, the greatest first."""


def judge(ranked: Sequence[Hashable], relevant: Collection[Hashable] | Mapping[Hashable, float]) -> Judged:
    """Compare a ranking with what is relevant; without grades every gain is 1."""
    grades: Mapping[Hashable, float] = relevant if isinstance(relevant, Mapping) else dict.fromkeys(relevant, 1.0)
    hits = [(rank, grades[document]) for rank, document in enumerate(ranked, start=1) if document in grades]
    return Judged(hits, sorted(grades.values(), reverse=True))


def accuracy(judged: Judged, k: int) -> float:
    """Return 1 if any of the first k documents is relevant, else 0."""
    return float(bool(judged.hits) and judged.hits[0][0] <= k)


def precision(judged: Judged, k: int) -> float:
    """Return the relevant share of k places."""
    return _num_hits(judged, k) / k


def recall(judged: Judged, k: int) -> float:
    """Return the share of the relevant documents that is among the first k."""
    return _num_hits(judged, k) / len(judged.gains)


def reciprocal_rank(judged: Judged, k: int) -> float:
    """Return 1 / rank of the first relevant document, 0 if there is none among the first k."""
    return 1 / judged.hits[0][0] if judged.hits and judged.hits[0][0] <= k else 0.0


def ndcg(judged: Judged, k: int) -> float:
    """Return the discounted gain as a share of the best possible one; see :func:`ndcg_at_k`."""
    gain: float = sum(grade / log2(rank + 1) for rank, grade in judged.hits if rank <= k)
    return gain / sum(grade / log2(rank + 1) for rank, grade in enumerate(judged.gains[:k], 1))


def average_precision(judged: Judged, k: int) -> float:
    """Return the mean precision at the relevant documents among the first k; see :func:`average_precision_at_k`."""
    found: float = sum(count / rank for count, (rank, _) in enumerate(judged.hits, start=1) if rank <= k)
    return found / min(k, len(judged.gains))


def _num_hits(judged: Judged, k: int) -> int:
    return sum(rank <= k for rank, _ in judged.hits)


def accuracy_at_k(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """Return 1 if any of the first k documents is relevant, else 0; also called success or hit rate."""
    return accuracy(judge(ranked[:k], relevant), k)


def precision_at_k(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """Return the relevant share of k places, also when fewer documents were found."""
    return precision(judge(ranked[:k], relevant), k)


def recall_at_k(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """Return the share of the relevant documents that is among the first k."""
    return recall(judge(ranked[:k], relevant), k)


def reciprocal_rank_at_k(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """Return 1 / rank of the first relevant document, 0 if there is none among the first k."""
    return reciprocal_rank(judge(ranked[:k], relevant), k)


def ndcg_at_k(ranked: Sequence[Hashable], relevant: Collection[Hashable] | Mapping[Hashable, float], k: int) -> float:
    r"""Return the discounted gain as a share of the best possible one.

    .. math:: \frac{\sum_{r \le k} g(d_r) / \log_2(r + 1)}{\sum_{r \le k} g^*_r / \log_2(r + 1)}

    where the gain of a document is its grade, 1 without grades, and :math:`g^*` are all grades, the best first. This is
    the nDCG of ``trec_eval`` and of BEIR; others take :math:`2^g - 1` for the gain.

    Source: Järvelin and Kekäläinen, 2002, https://doi.org/10.1145/582415.582418.
    """
    return ndcg(judge(ranked[:k], relevant), k)


def average_precision_at_k(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """Return the precision at each relevant document among the first k, added up and divided by min(k, |relevant|)."""
    return average_precision(judge(ranked[:k], relevant), k)
