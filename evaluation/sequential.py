"""Several evaluators as one; knows only that they return metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sparse_encoder.evaluation.base import BaseEvaluator


def last(scores: Sequence[float]) -> float:
    """Return the last score."""
    return scores[-1]


class SequentialEvaluator(BaseEvaluator):
    """Run evaluators one after the other and join their metrics.

    The joint score ``sequential_score`` is made of one number from each: its primary metric, the first metric if it
    has none, or the number it returned, which is also kept as ``evaluator_<position>``.

    Args:
        evaluators: At least one.
        main_score_function: Makes the joint score out of the numbers.

    Raises:
        TypeError: If one is no evaluator, naming its place.
        ValueError: If there are none (the peer scores 0), or two of one kind have the same name, so that their metrics
            would have the same names (the peer keeps the later ones).
    """

    primary_metric = "sequential_score"

    def __init__(
        self,
        evaluators: Iterable[BaseEvaluator],
        main_score_function: Callable[[Sequence[float]], float] = last,
    ) -> None:
        if not isinstance(evaluators, Iterable):
            raise TypeError(f"evaluators must be a list, got {type(evaluators).__name__}")
        self.evaluators = list(evaluators)
        for position, evaluator in enumerate(self.evaluators):
            if not callable(evaluator):
                raise TypeError(f"evaluators must be callable, number {position} is {evaluator!r}")
        self.main_score_function = main_score_function
        if not self.evaluators:
            raise ValueError("there must be at least one evaluator")
        kinds = [
            (type(evaluator).__name__, getattr(evaluator, "name", position))
            for position, evaluator in enumerate(self.evaluators)
        ]
        for kind, name in kinds:
            if kinds.count((kind, name)) > 1:
                raise ValueError(f"evaluators need different names, more than one {kind} is called {name!r}")

    def __call__(
        self,
        model: Any,  # noqa: ANN401  (handed on)
        output_path: str | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Measure a model; arguments as in :class:`BaseEvaluator`.

        Returns:
            All metrics, and ``sequential_score``.
        """
        joined: dict[str, float] = {}
        scores = []
        for position, evaluator in enumerate(self.evaluators):
            found = evaluator(model, output_path, epoch, steps)
            metrics = found if isinstance(found, dict) else {f"evaluator_{position}": found}
            primary = evaluator.primary_metric if isinstance(found, dict) else None
            scores.append(metrics[primary or next(iter(metrics))])
            joined.update(metrics)
        return {**joined, "sequential_score": float(self.main_score_function(scores))}
