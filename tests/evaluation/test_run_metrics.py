"""Measures of a run by hand; that they are those of ir_measures is in tests/parity."""

from __future__ import annotations

from math import inf, log2, nan
from typing import Any

import pytest

from sparse_encoder.evaluation import Collection
from sparse_encoder.evaluation.judgements import read_judgements
from sparse_encoder.evaluation.run_metrics import DEFAULT_METRICS, check_metric, deepest, means, measure_run

RUN = {"q": {"a": 5.0, "b": 4.0, "c": 3.0, "d": 2.0}}
QRELS = {"q": {"b": 3, "d": 1, "e": 2, "a": 0, "c": -1}}


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("nDCG@10", (3 / log2(3) + 1 / log2(5)) / (3 + 2 / log2(3) + 1 / 2)),
        ("nDCG@2", (3 / log2(3)) / (3 + 2 / log2(3))),
        ("MRR@10", 1 / 2),
        ("MRR@1", 0.0),
        ("Recall@2", 1 / 3),
        ("Recall@100", 2 / 3),
        ("P@5", 2 / 5),
        ("MAP", (1 / 2 + 2 / 4) / 3),
        ("R-precision", 1 / 3),
        ("Success@1", 0.0),
        ("Success@2", 1.0),
        ("RR@10", 1 / 2),
        ("R@2", 1 / 3),
        ("AP", (1 / 2 + 2 / 4) / 3),
        ("Rprec", 1 / 3),
    ],
)
def test_values_by_hand(metric: str, value: float) -> None:
    assert measure_run(RUN, QRELS, [metric]) == {metric: {"q": pytest.approx(value, abs=1e-12)}}


def test_every_judged_query_counts_and_no_other() -> None:
    run = {"q": {"a": 1.0}, "unjudged": {"a": 1.0}}
    qrels = {"q": {"a": 1}, "absent": {"a": 1}, "nothing relevant": {"a": 0}, "no grades": {}}
    values = measure_run(run, qrels)
    assert list(values) == list(DEFAULT_METRICS)
    for metric in DEFAULT_METRICS:
        assert values[metric] == {"q": 1.0, "absent": 0.0, "nothing relevant": 0.0}
    assert means(values) == dict.fromkeys(DEFAULT_METRICS, pytest.approx(1 / 3))


def test_ties_fall_by_id_but_rise_for_the_mrr() -> None:
    run, qrels = {"q": {"a": 1.0, "b": 1.0}}, {"q": {"a": 1}}
    assert means(measure_run(run, qrels, ["MAP", "MRR@10", "RR@10"])) == {"MAP": 0.5, "MRR@10": 1.0, "RR@10": 1.0}


@pytest.mark.parametrize("name", ["ndcg@10", "nDCG", "MAP@10", "Recall@0", "Recall@-1", "Recall@1.5", "MRR", ""])
def test_unknown_metrics(name: str) -> None:
    known = r"\['AP', 'MAP', 'MRR@k', 'P@k', 'R-precision', 'R@k', 'RR@k', 'Recall@k', 'Rprec', 'Success@k', 'nDCG@k'\]"
    with pytest.raises(ValueError, match=f"unknown metric {name!r}; choose from {known}"):
        check_metric(name)


def test_how_deep_metrics_look() -> None:
    assert deepest(["nDCG@10", "MAP", "R@2000"]) == 2000
    assert deepest(["MAP"]) == deepest([]) == 0
    with pytest.raises(ValueError, match="unknown metric 'nDCG@x'"):
        deepest(["nDCG@x"])


@pytest.mark.parametrize("qrels", [{}, {"q": {}}])
def test_nothing_judged(qrels: dict[str, dict[str, int]]) -> None:
    with pytest.raises(ValueError, match="there must be judgements"):
        measure_run(RUN, qrels)


@pytest.mark.parametrize("score", [nan, inf, -inf])
def test_scores_that_cannot_be_ranked_by_are_named(score: float) -> None:
    run = {"p": {"a": 1.0}, "q": {"a": 1.0, "b": score}}
    with pytest.raises(ValueError, match=f"scores must be finite, query 'q' gives document 'b' {score}"):
        measure_run(run, {"p": {"a": 1}, "q": {"a": 1}})
    assert measure_run(run, {"p": {"a": 1}}, ["MAP"]) == {"MAP": {"p": 1.0}}  # nobody asks what is not judged


@pytest.mark.parametrize(
    ("grade", "kind", "message"),
    [
        (nan, ValueError, "grades must be finite, document 'b' of query 'q' has nan"),
        (inf, ValueError, "grades must be finite, document 'b' of query 'q' has inf"),
        (2**53 + 1, ValueError, r"grades must be at most 2\*\*53, document 'b' of query 'q' has 9007199254740993"),
        (10**400, ValueError, r"grades must be at most 2\*\*53, document 'b' of query 'q' has 1000"),
        ("1", TypeError, "grades must be numbers, document 'b' of query 'q' has '1'"),
    ],
)
def test_grades_that_are_no_gains_are_named(grade: Any, kind: type[Exception], message: str) -> None:  # noqa: ANN401
    qrels = {"q": {"a": 1, "b": grade}}
    with pytest.raises(kind, match=message):
        measure_run(RUN, qrels)
    with pytest.raises(kind, match=message):
        Collection(name="one", corpus={"a": "x", "b": "y"}, queries={"q": "z"}, qrels=qrels)
    with pytest.raises(kind, match=message):
        read_judgements(qrels, ["q"], ["a", "b"])


def test_the_largest_grades_are_measured() -> None:
    qrels = {"q": {f"d{number}": 2**53 for number in range(50)}}
    run = {"q": {f"d{number}": float(number) for number in range(50)}}
    assert measure_run(run, qrels, ["nDCG@50"]) == {"nDCG@50": {"q": pytest.approx(1.0)}}
