"""Measures of a run by hand; that they are those of ir_measures is in tests/parity."""

from __future__ import annotations

from math import log2

import pytest

from sparse_encoder.evaluation.run_metrics import DEFAULT_METRICS, check_metric, means, measure_run

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
    ],
)
def test_values_by_hand(metric: str, value: float) -> None:
    assert measure_run(RUN, QRELS, [metric]) == {metric: {"q": pytest.approx(value, abs=1e-12)}}


def test_every_judged_query_counts_and_no_other() -> None:
    run = {"q": {"a": 1.0}, "unjudged": {"a": 1.0}}
    qrels = {"q": {"a": 1}, "absent": {"a": 1}, "nothing relevant": {"a": 0}}
    values = measure_run(run, qrels)
    assert list(values) == list(DEFAULT_METRICS)
    for metric in DEFAULT_METRICS:
        assert values[metric] == {"q": 1.0, "absent": 0.0, "nothing relevant": 0.0}
    assert means(values) == dict.fromkeys(DEFAULT_METRICS, pytest.approx(1 / 3))


def test_ties_fall_by_id_but_rise_for_the_mrr() -> None:
    run, qrels = {"q": {"a": 1.0, "b": 1.0}}, {"q": {"a": 1}}
    assert means(measure_run(run, qrels, ["MAP", "MRR@10"])) == {"MAP": 0.5, "MRR@10": 1.0}


@pytest.mark.parametrize("name", ["ndcg@10", "nDCG", "MAP@10", "Recall@0", "Recall@-1", "Recall@1.5", "MRR", ""])
def test_unknown_metrics(name: str) -> None:
    known = r"\['MAP', 'MRR@k', 'P@k', 'R-precision', 'Recall@k', 'nDCG@k'\]"
    with pytest.raises(ValueError, match=f"unknown metric {name!r}; choose from {known}"):
        check_metric(name)


def test_nothing_judged() -> None:
    with pytest.raises(ValueError, match="there must be judgements"):
        measure_run(RUN, {})
