"""Measures of a run, query by query, from grades of relevance: equal to those of trec_eval and ir_measures.

Every judged query gets a number: 0 if the run does not have it, or nothing is relevant to it. Queries without
judgements are left out. Knows no model and no files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import log2
from typing import NamedTuple

from sparse_encoder.evaluation.trec_files import order_of

DEFAULT_METRICS = ("nDCG@10", "MRR@10", "Recall@100", "Recall@1000", "MAP", "R-precision")
PerQuery = dict[str, dict[str, float]]
"""Values by id of the query, by name of the metric."""


class GradedRanking(NamedTuple):
    """What a measure needs of one query.

    Attributes:
        found: Grades of the documents that were found, best first; 0 for one that was not judged.
        ideal: The positive grades of all judged documents, falling; there is at least one.
    """

    found: Sequence[int]
    ideal: Sequence[int]

    def hits(self, k: int | None = None) -> int:
        """Count the relevant documents among the first k, or all."""
        return sum(grade > 0 for grade in self.found[:k])


def graded_ndcg(ranking: GradedRanking, k: int) -> float:
    r"""Return the discounted gain of the first k as a share of the best possible one.

    .. math:: \sum_{r \le k} \max(g_r, 0) / \log_2(r + 1)

    Source: Järvelin and Kekäläinen, 2002, https://doi.org/10.1145/582415.582418; the gain is the grade itself.
    """
    return _gain(ranking.found[:k]) / _gain(ranking.ideal[:k])


def _gain(grades: Sequence[int]) -> float:
    return sum(grade / log2(rank + 1) for rank, grade in enumerate(grades, start=1) if grade > 0)


def graded_mrr(ranking: GradedRanking, k: int) -> float:
    """Return 1 / rank of the first relevant document, 0 if there is none among the first k."""
    return next((1 / rank for rank, grade in enumerate(ranking.found[:k], start=1) if grade > 0), 0.0)


def graded_recall(ranking: GradedRanking, k: int) -> float:
    """Return the share of the relevant documents that is among the first k."""
    return ranking.hits(k) / len(ranking.ideal)


def graded_precision(ranking: GradedRanking, k: int) -> float:
    """Return the relevant share of k places, also when fewer documents were found."""
    return ranking.hits(k) / k


def graded_map(ranking: GradedRanking) -> float:
    """Return the precision at each relevant document, added up and divided by the number of relevant ones."""
    ranks = (rank for rank, grade in enumerate(ranking.found, start=1) if grade > 0)
    return sum(count / rank for count, rank in enumerate(ranks, start=1)) / len(ranking.ideal)


def graded_r_precision(ranking: GradedRanking) -> float:
    """Return the precision among as many documents as are relevant."""
    return ranking.hits(len(ranking.ideal)) / len(ranking.ideal)


_AT_K: dict[str, Callable[[GradedRanking, int], float]] = {
    "MRR": graded_mrr,
    "P": graded_precision,
    "Recall": graded_recall,
    "nDCG": graded_ndcg,
}
_WHOLE: dict[str, Callable[[GradedRanking], float]] = {"MAP": graded_map, "R-precision": graded_r_precision}
_NAME = re.compile(r"([A-Za-z-]+)@([1-9]\d{0,8})")


def check_metric(name: str) -> None:
    """Refuse a name that is no metric.

    Raises:
        ValueError: Naming those there are.
    """
    _measure_of(name)


def measure_run(
    run: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    metrics: Iterable[str] = DEFAULT_METRICS,
) -> PerQuery:
    """Measure a run.

    Equal scores are taken in the order of trec_eval, by falling id; for ``MRR@k`` by rising id, as the script of
    MS MARCO does that ir_measures measures it with.

    Args:
        run: Scores by query and document.
        qrels: Grades by query and document; above 0 is relevant.
        metrics: ``nDCG@k``, ``MRR@k``, ``Recall@k``, ``P@k`` for any k, ``MAP`` and ``R-precision`` over the whole run.

    Returns:
        By metric, for each judged query.

    Raises:
        ValueError: If a metric is unknown, or nothing is judged.
    """
    measures = {name: _measure_of(name) for name in metrics}
    if not qrels:
        raise ValueError("there must be judgements to measure a run with")
    values: PerQuery = {name: {} for name in measures}
    for query, grades in qrels.items():
        ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
        scores = run.get(query, {})
        orders = {False: order_of(scores), True: sorted(scores, key=lambda document: (-scores[document], document))}
        for name, measure in measures.items():
            found = [grades.get(document, 0) for document in orders[name.startswith("MRR")]]
            values[name][query] = measure(GradedRanking(found, ideal)) if ideal else 0.0
    return values


def means(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Average the values of each metric over the queries."""
    return {name: sum(by_query.values()) / len(by_query) for name, by_query in values.items()}


def _measure_of(name: str) -> Callable[[GradedRanking], float]:
    if name in _WHOLE:
        return _WHOLE[name]
    match = _NAME.fullmatch(name)
    if match is None or match[1] not in _AT_K:
        known = sorted([*(f"{stem}@k" for stem in _AT_K), *_WHOLE])
        raise ValueError(f"unknown metric {name!r}; choose from {known}")
    at_k, k = _AT_K[match[1]], int(match[2])
    return lambda ranking: at_k(ranking, k)
