"""Which evaluation of a run is the best so far; plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sparse_encoder.training.arguments import TrainingArguments
from sparse_encoder.training.state import TrainerState


def note_best(args: TrainingArguments, state: TrainerState, metrics: Mapping[str, float]) -> bool:
    """Note a metric that is strictly better than all before; what is not finite never is.

    Args:
        args: Say which metric, and whether greater is better.
        state: Gets the metric and the step.
        metrics: Of an evaluation at this step.

    Returns:
        Whether it is the best.

    Raises:
        KeyError: If the metric is not among the results.
    """
    if args.metric_for_best_model is None:
        return False
    value, best = metric_of(metrics, args.metric_for_best_model), state.best_metric
    if not math.isfinite(value):
        return False
    if best is not None and not (value > best if args.greater_is_better else value < best):
        return False
    state.best_metric, state.best_global_step = value, state.global_step
    return True


def metric_of(metrics: Mapping[str, float], name: str) -> float:
    """Return a metric by its name, with or without ``eval_``.

    Raises:
        KeyError: If it is not there; lists those that are.
    """
    name = name if name.startswith("eval_") else f"eval_{name}"
    if name not in metrics:
        raise KeyError(f"metric_for_best_model is {name!r}; the evaluation gave {sorted(metrics)}")
    return metrics[name]
