"""The number that a search makes small or large, of the metrics of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparse_encoder.training.outputs import TIMINGS
from sparse_encoder.training.tuning.protocol import Objective

LOSS = "eval_loss"


def default_compute_objective(metrics: Mapping[str, float]) -> float:
    """Return the loss if it is the only metric, else the sum of all the others.

    Args:
        metrics: Of an evaluation; not changed. What depends on the clock does not count (in the peer
            ``eval_model_preparation_time`` does), nor does the epoch.

    Raises:
        ValueError: If nothing is left that could count.
    """
    clean = {name: value for name, value in metrics.items() if name != "epoch" and not name.endswith(TIMINGS)}
    loss = clean.pop(LOSS, None)
    if clean:
        return sum(clean.values())
    if loss is None:
        raise ValueError(f"the evaluation gave nothing to search by, only {sorted(metrics)}; give compute_objective")
    return loss


def objectives_of(compute: Objective, metrics: Mapping[str, float], directions: Sequence[str]) -> list[float]:
    """Compute the objectives of an evaluation.

    Args:
        compute: Gets a copy of the metrics.
        metrics: By name.
        directions: One for each objective.

    Raises:
        TypeError: If an objective is no number.
        ValueError: If there are more or fewer objectives than directions.
    """
    result = compute(dict(metrics))
    found = list(result) if isinstance(result, list | tuple) else [result]
    if len(found) != len(directions):
        raise ValueError(
            f"compute_objective must return a number for each of the directions {list(directions)}, got {result!r}"
        )
    try:
        return [float(each) for each in found]
    except (TypeError, ValueError) as reason:
        raise TypeError(f"compute_objective must return numbers, got {result!r}") from reason
