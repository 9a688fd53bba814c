"""Measures of a run, query by query, from grades of relevance: equal to those of trec_eval and ir_measures.

Every judged query gets a number: 0 if the run does not have it, or nothing is relevant to it, that is all its grades
are 0 or below. Queries without judgements are left out. Knows no model and no files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from sparse_encoder.evaluation.judgements import check_grade
from sparse_encoder.evaluation.metrics import (
    accuracy_at_k,
    average_precision_at_k,
    ndcg_at_k,
    precision_at_k,
    recall_at_k,
    reciprocal_rank_at_k,
)
from sparse_encoder.evaluation.trec_files import check_scores, order_of

DEFAULT_METRICS = ("nDCG@10", "MRR@10", "Recall@100", "Recall@1000", "MAP", "R-precision")
PerQuery = dict[str, dict[str, float]]
"""Values by id of the query, by name of the metric."""


Measure = Callable[[Sequence[str], Mapping[str, int]], float]
"""Takes a ranking, best first, and the grades of the relevant documents."""

_AT_K: dict[str, Callable[[Sequence[str], Mapping[str, int], int], float]] = {
    "MRR": reciprocal_rank_at_k,
    "P": precision_at_k,
    "R": recall_at_k,
    "RR": reciprocal_rank_at_k,
    "Recall": recall_at_k,
    "Success": accuracy_at_k,
    "nDCG": ndcg_at_k,
}


def average_precision(ranked: Sequence[str], relevant: Mapping[str, int]) -> float:
    """Return the precision at each relevant document, added up and divided by the number of relevant ones."""
    return average_precision_at_k(ranked, relevant, max(len(ranked), len(relevant), 1))


def r_precision(ranked: Sequence[str], relevant: Mapping[str, int]) -> float:
    """Return the precision among as many documents as are relevant."""
    return precision_at_k(ranked, relevant, len(relevant))


_WHOLE: dict[str, Measure] = {
    "AP": average_precision,
    "MAP": average_precision,
    "R-precision": r_precision,
    "Rprec": r_precision,
}
_TIES_RISE = ("MRR@", "RR@")
_NAME = re.compile(r"([A-Za-z-]+)@([1-9]\d{0,8})")


def check_metric(name: str) -> None:
    """Refuse a name that is no metric.

    Raises:
        ValueError: Naming those there are.
    """
    _measure_of(name)


def deepest(names: Iterable[str]) -> int:
    """Return how many documents of a ranking the metrics look at, 0 if none of them says.

    Raises:
        ValueError: If one is no metric, naming those there are.
    """
    found = 0
    for name in names:
        check_metric(name)
        match = _NAME.fullmatch(name)
        found = max(found, int(match[2]) if match else 0)
    return found


def measure_run(
    run: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    metrics: Iterable[str] = DEFAULT_METRICS,
) -> PerQuery:
    """Measure a run.

    Equal scores are taken in the order of trec_eval, by falling id; for ``MRR@k`` by rising id, as the script of
    MS MARCO does that ir_measures measures it with. A query whose grades are all 0 or below counts, with 0, and one
    without grades does not: so trec_eval and ir_measures have it.

    Args:
        run: Scores by query and document.
        qrels: Grades by query and document; above 0 is relevant.
        metrics: ``nDCG@k``, ``MRR@k``, ``Recall@k``, ``P@k``, ``Success@k`` for any k, ``MAP`` and ``R-precision``
            over the whole run; also by their names in ir_measures: ``RR@k``, ``R@k``, ``AP``, ``Rprec``.

    Returns:
        By metric, for each judged query.

    Raises:
        TypeError: If a grade or a score is no number, naming query and document, or the metrics are no list.
        ValueError: If a metric is unknown, nothing is judged, or a grade or a score is no finite number, naming query
            and document.
    """
    if isinstance(metrics, str):
        raise TypeError(f"metrics must be a list of names, got {metrics!r}")
    measures = {name: _measure_of(name) for name in metrics}
    judged = {query: grades for query, grades in qrels.items() if grades}
    if not judged:
        raise ValueError("there must be judgements to measure a run with")
    values: PerQuery = {name: {} for name in measures}
    for query, grades in judged.items():
        if not isinstance(grades, Mapping):
            raise TypeError(f"qrels must hold grades by document, query {query!r} has {grades!r}")
        for document, grade in grades.items():
            check_grade(query, document, grade)
        relevant = {document: grade for document, grade in grades.items() if grade > 0}
        scores = run.get(query, {})
        check_scores(query, scores)
        orders = {False: order_of(scores), True: sorted(scores, key=lambda document: (-scores[document], document))}
        for name, measure in measures.items():
            ranked = orders[name.startswith(_TIES_RISE)]
            values[name][query] = measure(ranked, relevant) if relevant else 0.0
    return values


def means(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Average the values of each metric over the queries."""
    return {name: sum(by_query.values()) / len(by_query) for name, by_query in values.items()}


def _measure_of(name: str) -> Measure:
    if name in _WHOLE:
        return _WHOLE[name]
    match = _NAME.fullmatch(name)
    if match is None or match[1] not in _AT_K:
        known = sorted([*(f"{stem}@k" for stem in _AT_K), *_WHOLE])
        raise ValueError(f"unknown metric {name!r}; choose from {known}")
    at_k, k = _AT_K[match[1]], int(match[2])
    return lambda ranked, relevant: at_k(ranked, relevant, k)
