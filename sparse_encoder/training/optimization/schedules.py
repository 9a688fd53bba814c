r"""Learning rate schedules: the factor of the base rate at each step; know nothing of optimizers.

With s the step, W the warm-up steps, T all steps and :math:`p = (s - W) / \max(1, T - W)`, every schedule but
``constant`` begins with :math:`s / \max(1, W)` for s < W. Names and formulas are those of transformers.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Factor = Callable[[int], float]


class Course(NamedTuple):
    """What a schedule may depend on."""

    warmup_steps: int
    total_steps: int
    base_rate: float = 1.0
    """The optimizer's default learning rate."""

    def progress(self, step: int) -> float:
        """Return p: 0 at the end of the warm-up, 1 at the end of the run."""
        return (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)


def constant(course: Course) -> Factor:
    """Keep the base rate; a warm-up contradicts it and is refused.

    Raises:
        ValueError: If there are warm-up steps.
    """
    if course.warmup_steps:
        raise ValueError(
            f"the 'constant' schedule has no warm-up, got {course.warmup_steps} steps; take 'constant_with_warmup'"
        )
    return lambda step: 1.0


def constant_with_warmup(course: Course) -> Factor:
    """Rise to the base rate and stay there."""
    return _after_warmup(course, lambda step: 1.0)


def linear(course: Course) -> Factor:
    """Rise to the base rate, then fall to 0: max(0, 1 - p)."""
    length = max(1, course.total_steps - course.warmup_steps)
    return _after_warmup(course, lambda step: max(0.0, (course.total_steps - step) / length))


def cosine(course: Course, *, num_cycles: float = 0.5) -> Factor:
    """Rise, then fall along a cosine: max(0, (1 + cos(2 pi num_cycles p)) / 2)."""
    turn = 2.0 * math.pi * num_cycles
    return _after_warmup(course, lambda step: max(0.0, 0.5 * (1.0 + math.cos(turn * course.progress(step)))))


def cosine_with_restarts(course: Course, *, num_cycles: int = 1) -> Factor:
    """Rise, then fall along ``num_cycles`` half cosines, each from the base rate to 0."""

    def factor(step: int) -> float:
        progress = course.progress(step)
        return 0.0 if progress >= 1.0 else max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((num_cycles * progress) % 1.0))))

    return _after_warmup(course, factor)


def inverse_sqrt(course: Course, *, timescale: int | None = None) -> Factor:
    """Rise, then fall as 1 / sqrt((s + timescale - W) / timescale); ``timescale`` is W, or 10,000 without warm-up."""
    scale = timescale or course.warmup_steps or 10_000
    return _after_warmup(course, lambda step: 1.0 / math.sqrt((step + scale - course.warmup_steps) / scale))


def polynomial(course: Course, *, lr_end: float = 1e-7, power: float = 1.0) -> Factor:
    """Rise, then fall to ``lr_end``: lr_end + (base rate - lr_end) (1 - p) ** power, over the base rate.

    Raises:
        ValueError: If ``lr_end`` is not below the base rate.
    """
    if not lr_end < course.base_rate:
        raise ValueError(f"lr_end must be below the learning rate {course.base_rate}, got {lr_end}")

    def factor(step: int) -> float:
        remaining = max(0.0, 1.0 - course.progress(step)) if step <= course.total_steps else 0.0
        return float(((course.base_rate - lr_end) * remaining**power + lr_end) / course.base_rate)

    return _after_warmup(course, factor)


_ALL = (constant, constant_with_warmup, cosine, cosine_with_restarts, inverse_sqrt, linear, polynomial)
SCHEDULES: dict[str, Callable[..., Factor]] = {schedule.__name__: schedule for schedule in _ALL}


def check_schedule(name: str, options: Mapping[str, Any]) -> None:  # the options are numbers of several types
    """Refuse a schedule or an option that does not exist.

    Raises:
        ValueError: If the schedule is unknown.
        TypeError: If it has no such option.
    """
    if name not in SCHEDULES:
        raise ValueError(f"unknown lr_scheduler_type {name!r}; choose from {sorted(SCHEDULES)}")
    known = sorted(
        parameter.name
        for parameter in inspect.signature(SCHEDULES[name]).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    )
    if unknown := sorted(set(options) - set(known)):
        raise TypeError(f"lr_scheduler_kwargs of {name!r} can be {known}, got {unknown}")


def _after_warmup(course: Course, factor: Factor) -> Factor:
    """Put the rise from 0 to 1 in front of a schedule."""
    warmup_steps = course.warmup_steps
    return lambda step: step / max(1, warmup_steps) if step < warmup_steps else factor(step)
