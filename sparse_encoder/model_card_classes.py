"""Scores by class among the metrics of a result: ``PER_precision``, ``PER_recall``, ``PER_f1``, ``PER_number``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sparse_encoder.model_card_markdown import escape, number, table

PARTS = ("precision", "recall", "f1", "number")
"""Endings of the metrics of a class; where one of the four is missing, the others are metrics like any."""


class ClassScores(NamedTuple):
    """Metrics, and those of classes among them."""

    rest: dict[str, float]
    """The others, in their order."""
    classes: dict[str, dict[str, float]]
    """By class and ending."""


def scores_by_class(metrics: Mapping[str, float]) -> ClassScores:
    """Take the scores of classes out of metrics.

    Args:
        metrics: By name.
    """
    suffix = f"_{PARTS[0]}"
    names = [name.removesuffix(suffix) for name in metrics if name.endswith(suffix)]
    classes = {
        name: {part: metrics[f"{name}_{part}"] for part in PARTS}
        for name in names
        if all(f"{name}_{part}" in metrics for part in PARTS)
    }
    taken = {f"{name}_{part}" for name in classes for part in PARTS}
    return ClassScores({name: value for name, value in metrics.items() if name not in taken}, classes)


def class_table(classes: Mapping[str, Mapping[str, float]]) -> str:
    """Write the scores of classes as a table, a row for each.

    Args:
        classes: By class and ending, as :func:`scores_by_class` finds them.
    """
    rows = [[escape(name), *(number(scores[part]) for part in PARTS)] for name, scores in sorted(classes.items())]
    return table(["Class", "Precision", "Recall", "F1", "Number"], rows)
