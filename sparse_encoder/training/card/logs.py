"""Rows of a training log out of what a trainer logs; knows neither trainer nor card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sparse_encoder.model_card_base import EPOCH, STEP, TRAINING_LOSS, VALIDATION_LOSS
from sparse_encoder.model_card_results import numbers
from sparse_encoder.training.outputs import TIMINGS

PREFIX = "eval_"


def training_values(logs: Mapping[str, object]) -> dict[str, float]:
    """Return the training loss of what was logged, if it is there."""
    return numbers({TRAINING_LOSS: logs.get("loss")})


def loss_values(metrics: Mapping[str, object], names: Iterable[str | None]) -> dict[str, float]:
    """Return the losses of an evaluation.

    Args:
        metrics: As the trainer returns them.
        names: Of the evaluation datasets; None for a single one.
    """
    keys = {f"{PREFIX}loss": VALIDATION_LOSS, **{f"{PREFIX}{name}_loss": f"{name} loss" for name in names if name}}
    return {keys[key]: value for key, value in numbers(metrics).items() if key in keys}


def metric_values(metrics: Mapping[str, object]) -> dict[str, float]:
    """Return the metrics of an evaluation, without its losses and its timings."""
    return {
        key.removeprefix(PREFIX): value
        for key, value in numbers(metrics).items()
        if key.startswith(PREFIX) and not key.endswith((*TIMINGS, "loss"))
    }


def chosen_metric(metrics: Mapping[str, object], name: str | None) -> dict[str, float]:
    """Return the metric by which the best model is chosen, if it is one of an evaluation and no loss."""
    values = metric_values(metrics)
    short = (name or "").removeprefix(PREFIX)
    return {short: values[short]} if short in values else {}


def seconds_of(metrics: Mapping[str, object]) -> float:
    """Return the time that an evaluation took."""
    return sum(value for key, value in numbers(metrics).items() if key.endswith("_runtime"))


def rows_of(history: Iterable[Mapping[str, object]], names: Iterable[str | None]) -> list[dict[str, float]]:
    """Return a row per step of a trainer's history: losses, and all metrics, which are shown when they are asked for.

    Args:
        history: What was logged, each with ``step`` and ``epoch``.
        names: Of the evaluation datasets.
    """
    known = list(names)
    rows: dict[float, dict[str, float]] = {}
    for logged in history:
        place = numbers({"step": logged.get("step"), "epoch": logged.get("epoch")})
        values = {**training_values(logged), **loss_values(logged, known), **metric_values(logged)}
        if values and "step" in place:
            row = rows.setdefault(place["step"], {EPOCH: place.get("epoch", 0.0), STEP: place["step"]})
            row.update(values)
    return list(rows.values())
