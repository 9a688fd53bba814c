"""What evaluators found, read back out of a trainer's history; knows neither trainer nor card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sparse_encoder.model_card_results import EvaluationResult, numbers, result_of
from sparse_encoder.training.card.logs import PREFIX, metric_values

Evaluator = Any  # whatever a trainer takes for one


def single_evaluators(evaluator: Evaluator) -> list[Evaluator]:
    """Return the evaluators that one is made of, or itself."""
    if evaluator is None:
        return []
    parts = getattr(evaluator, "evaluators", None)
    return [each for part in parts for each in single_evaluators(part)] if parts else [evaluator]


def primary_metrics(evaluators: Iterable[Evaluator]) -> list[str]:
    """Return the names of the metrics that stand for the whole."""
    names = (getattr(each, "primary_metric", None) for each in evaluators)
    return [name.removeprefix(PREFIX) for name in names if isinstance(name, str)]


def results_in(row: Mapping[str, object], evaluators: Iterable[Evaluator]) -> list[EvaluationResult]:
    """Return what evaluators found, as a row of the history has it; those that are not in it are left out."""
    values = metric_values(numbers(row))
    found = []
    for evaluator in evaluators:
        name = getattr(evaluator, "name", None)
        own = {key: value for key, value in values.items() if not name or key.startswith(f"{name}_")}
        if own:
            found.append(result_of(evaluator, own))
    return found


def replaced(before: Iterable[EvaluationResult], found: Iterable[EvaluationResult]) -> list[EvaluationResult]:
    """Return results with newer ones in their places."""
    newer = {result.key: result for result in found}
    kept = [newer.pop(result.key, result) for result in before]
    return [*kept, *newer.values()]
