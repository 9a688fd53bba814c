"""Scores by class in a README."""

from __future__ import annotations

from sparse_encoder.model_card_classes import scores_by_class
from sparse_encoder.model_card_results import EvaluationResult, result_tables

METRICS = {
    "f1": 0.75,
    "PER_precision": 0.5,
    "PER_recall": 1.0,
    "PER_f1": 0.6667,
    "PER_number": 4,
    "GPE-LOC_precision": 1.0,
    "GPE-LOC_recall": 1.0,
    "GPE-LOC_f1": 1.0,
    "GPE-LOC_number": 2,
    "half_precision": 0.25,
    "half_f1": 0.3,
}


def test_classes_are_told_apart_by_their_four_scores() -> None:
    rest, classes = scores_by_class(METRICS)
    assert rest == {"f1": 0.75, "half_precision": 0.25, "half_f1": 0.3}
    assert classes["GPE-LOC"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "number": 2}
    assert list(classes) == ["PER", "GPE-LOC"]


def test_each_class_has_a_row() -> None:
    written = result_tables([EvaluationResult(evaluator="Trainer", task="Evaluation", dataset="", metrics=METRICS)])
    lines = [line.replace(" ", "") for line in written.splitlines()]
    assert "|Class|Precision|Recall|F1|Number|" in lines
    assert "|PER|0.5|1.0|0.6667|4|" in lines
    assert "|half_f1|0.3|" in lines
    assert not any("PER_f1" in line for line in lines)
