r"""Learning rate schedules by name: the factor of the base rate at each step.

With s the step, W the warm-up steps, T all steps and :math:`p = (s - W) / \max(1, T - W)`, a schedule begins with
:math:`s / \max(1, W)` for s < W unless its description says otherwise. Names and formulas are those of transformers.
Schedules that follow a metric are in :mod:`~sparse_encoder.training.optimization.metric_schedules`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from sparse_encoder.training.optimization.metric_schedules import (
    METRIC_SCHEDULES,
    GreedySchedule,
    PlateauSchedule,
    without_parameters,
)
from sparse_encoder.training.optimization.settings import ScheduleSettings
from sparse_encoder.training.steps import steps_of

Factor = Callable[[int], float]
AnySchedule = LambdaLR | PlateauSchedule | GreedySchedule


class Course(NamedTuple):
    """What a schedule may depend on."""

    warmup_steps: int
    total_steps: int
    base_rate: float = 1.0
    """The optimizer's default learning rate."""

    def progress(self, step: int) -> float:
        """Return p: 0 at the end of the warm-up, 1 at the end of the run."""
        return (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)

    def rise(self, step: int) -> float:
        """Return the share of the warm-up that is done."""
        return step / max(1, self.warmup_steps)


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
    return _after_warmup(course, lambda step: max(0.0, _wave(num_cycles, course.progress(step))))


def cosine_with_min_lr(
    course: Course, *, num_cycles: float = 0.5, min_lr: float | None = None, min_lr_rate: float | None = None
) -> Factor:
    """Rise, then fall along a cosine to a smallest rate: (1 + cos(2 pi num_cycles p)) / 2 (1 - r) + r.

    Here r is ``min_lr_rate``, or ``min_lr`` over the base rate; one of them is needed.

    Raises:
        ValueError: If neither or both are given, or it is negative.
    """
    lowest = _lowest_factor(course, min_lr, min_lr_rate)
    return _after_warmup(course, lambda step: max(0.0, _above(lowest, _wave(num_cycles, course.progress(step)))))


def cosine_warmup_with_min_lr(
    course: Course,
    *,
    num_cycles: float = 0.5,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
    warmup_lr_rate: float | None = None,
) -> Factor:
    """Do as ``cosine_with_min_lr``, one step ahead, and rise from a rate above 0.

    The rise is (s + 1) / max(1, W), or with ``warmup_lr_rate`` r from r to 1: r + (1 - r) s / max(1, W - 1).

    Raises:
        ValueError: If neither or both of ``min_lr`` and ``min_lr_rate`` are given, or a rate is negative.
    """
    lowest = _lowest_factor(course, min_lr, min_lr_rate)
    if warmup_lr_rate is not None:
        _not_negative("warmup_lr_rate", warmup_lr_rate)

    def factor(step: int) -> float:
        if step >= course.warmup_steps:
            return max(0.0, _above(lowest, _wave(num_cycles, course.progress(step + 1))))
        if warmup_lr_rate is None:
            return (step + 1.0) / max(1.0, course.warmup_steps)
        return warmup_lr_rate + (1.0 - warmup_lr_rate) * step / max(1, course.warmup_steps - 1)

    return factor


def cosine_with_restarts(course: Course, *, num_cycles: int = 1) -> Factor:
    """Rise, then fall along ``num_cycles`` half cosines, each from the base rate to 0."""

    def factor(step: int) -> float:
        progress = course.progress(step)
        return 0.0 if progress >= 1.0 else max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((num_cycles * progress) % 1.0))))

    return _after_warmup(course, factor)


def inverse_sqrt(course: Course, *, timescale: int | None = None) -> Factor:
    """Rise, then fall as 1 / sqrt((s + timescale - W) / timescale); ``timescale`` is W, or 10,000 without warm-up.

    Raises:
        ValueError: If ``timescale`` is not positive.
    """
    if timescale is not None and not timescale > 0:
        raise ValueError(f"timescale must be > 0, got {timescale}")
    scale = timescale or course.warmup_steps or 10_000
    return _after_warmup(course, lambda step: 1.0 / math.sqrt((step + scale - course.warmup_steps) / scale))


def polynomial(course: Course, *, lr_end: float = 1e-7, power: float = 1.0) -> Factor:
    """Rise, then fall to ``lr_end``: lr_end + (base rate - lr_end) (1 - p) ** power, over the base rate.

    The base rate is the optimizer's default, also for groups that have a rate of their own.

    Raises:
        ValueError: If ``lr_end`` is negative or not below the base rate.
    """
    _not_negative("lr_end", lr_end)
    if not lr_end < course.base_rate:
        raise ValueError(f"lr_end must be below the learning rate {course.base_rate}, got {lr_end}")

    def factor(step: int) -> float:
        remaining = max(0.0, 1.0 - course.progress(step)) if step <= course.total_steps else 0.0
        return float(((course.base_rate - lr_end) * remaining**power + lr_end) / course.base_rate)

    return _after_warmup(course, factor)


_RISES: dict[str, Callable[[float], float]] = {
    "1-sqrt": lambda progress: 1.0 - math.sqrt(1.0 - progress),
    "cosine": lambda progress: 0.5 * (1.0 - math.cos(math.pi * progress)),
    "linear": lambda progress: progress,
}
_FALLS: dict[str, Callable[[float, float], float]] = {
    "1-sqrt": lambda progress, num_cycles: 1.0 - math.sqrt(progress),
    "cosine": lambda progress, num_cycles: _wave(num_cycles, progress),
    "linear": lambda progress, num_cycles: 1.0 - progress,
}


def warmup_stable_decay(
    course: Course,
    *,
    num_decay_steps: int,
    num_stable_steps: int | None = None,
    warmup_type: str = "linear",
    decay_type: str = "cosine",
    min_lr_ratio: float = 0.0,
    num_cycles: float = 0.5,
) -> Factor:
    """Rise from ``min_lr_ratio`` to 1, stay, and fall to ``min_lr_ratio`` again.

    With q the share of a part that is done, the rise is q, (1 - cos(pi q)) / 2 or 1 - sqrt(1 - q), and the fall 1 - q,
    (1 + cos(2 pi num_cycles q)) / 2 or 1 - sqrt(q), for "linear", "cosine" and "1-sqrt", each times
    (1 - min_lr_ratio) and plus min_lr_ratio. ``num_stable_steps`` is what the other two parts leave of the run; a
    smaller number ends the fall before the run ends.

    Raises:
        ValueError: If a type is unknown, a number is negative, or the parts are longer than the run.
    """
    for name, chosen, known in (("warmup_type", warmup_type, _RISES), ("decay_type", decay_type, _FALLS)):
        if chosen not in known:
            raise ValueError(f"unknown {name} {chosen!r}; choose from {sorted(known)}")
    _not_negative("min_lr_ratio", min_lr_ratio)
    _not_negative("num_decay_steps", num_decay_steps)
    if num_stable_steps is None:
        num_stable_steps = course.total_steps - course.warmup_steps - num_decay_steps
        if num_stable_steps < 0:
            raise ValueError(
                f"warmup_steps and num_decay_steps must be at most the {course.total_steps} updates of the run "
                f"together, got {course.warmup_steps} and {num_decay_steps}"
            )
    _not_negative("num_stable_steps", num_stable_steps)
    rise, fall, decay_start = _RISES[warmup_type], _FALLS[decay_type], course.warmup_steps + num_stable_steps

    def factor(step: int) -> float:
        if step < course.warmup_steps:
            return max(0.0, _above(min_lr_ratio, rise(course.rise(step))))
        if step < decay_start:
            return 1.0
        if step < decay_start + num_decay_steps:
            return max(0.0, _above(min_lr_ratio, fall((step - decay_start) / max(1, num_decay_steps), num_cycles)))
        return min_lr_ratio

    return factor


_ALL = (
    constant,
    constant_with_warmup,
    cosine,
    cosine_warmup_with_min_lr,
    cosine_with_min_lr,
    cosine_with_restarts,
    inverse_sqrt,
    linear,
    polynomial,
    warmup_stable_decay,
)
SCHEDULES: dict[str, Callable[..., Factor]] = {schedule.__name__: schedule for schedule in _ALL}
SCHEDULE_NAMES = tuple(sorted({*SCHEDULES, *METRIC_SCHEDULES}))


def check_schedule(name: str, options: Mapping[str, Any]) -> None:  # the options are numbers and names
    """Refuse a schedule or an option that does not exist or has no meaning.

    Raises:
        ValueError: If the schedule is unknown, or the value of an option is out of range.
        TypeError: If it has no such option, or needs one that is missing.
    """
    if name not in SCHEDULE_NAMES:
        raise ValueError(f"unknown lr_scheduler_type {name!r}; choose from {list(SCHEDULE_NAMES)}")
    build: Callable[..., Any] = SCHEDULES[name] if name in SCHEDULES else METRIC_SCHEDULES[name]
    parameters = inspect.signature(build).parameters.values()
    known = {each.name: each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}
    if unknown := sorted(set(options) - set(known)):
        raise TypeError(f"lr_scheduler_kwargs of {name!r} can be {sorted(known)}, got {unknown}")
    needed = {key for key, each in known.items() if each.default is inspect.Parameter.empty}
    if missing := sorted(needed - set(options)):
        raise TypeError(f"lr_scheduler_kwargs of {name!r} must have {missing}")
    build(Course(0, 2**62, base_rate=math.inf) if name in SCHEDULES else without_parameters(), **options)


def schedule_of(name: str, optimizer: Optimizer, course: Course, options: Mapping[str, Any]) -> AnySchedule:
    """Return a schedule by name; its steps are checked, unlike its options.

    Raises:
        ValueError: If the warm-up is longer than the run, or does not go with the schedule.
    """
    if course.warmup_steps > course.total_steps:
        raise ValueError(
            f"warmup_steps must be at most the {course.total_steps} updates of the run, got {course.warmup_steps}"
        )
    if name in SCHEDULES:
        return LambdaLR(optimizer, SCHEDULES[name](course, **options))
    if course.warmup_steps:
        raise ValueError(f"the {name!r} schedule has no warm-up, got {course.warmup_steps} steps")
    return METRIC_SCHEDULES[name](optimizer, **options)


def build_scheduler(optimizer: Optimizer, args: ScheduleSettings, max_steps: int) -> AnySchedule:
    """Return the schedule that the arguments name, over a run of ``max_steps`` updates.

    One that follows a metric looks for larger values if ``greater_is_better``, unless its options say otherwise; the
    peer's looks for smaller ones even then.

    Raises:
        ValueError: If the warm-up is longer than the run, or does not go with the schedule, or the value of an option
            is out of range.
    """
    name, options = args.lr_scheduler_type, args.mapping("lr_scheduler_kwargs")
    if name in METRIC_SCHEDULES and args.greater_is_better:
        options = {"mode": "max", **options}
    course = Course(steps_of(args.warmup_steps, max_steps), max_steps, base_rate=optimizer.defaults["lr"])
    return schedule_of(name, optimizer, course, options)


def takes_metric(schedule: object) -> bool:
    """Return whether a schedule is stepped with the metric of each evaluation, not once per update.

    That is one that says so, or whose ``step`` cannot be called without an argument, as torch's ``ReduceLROnPlateau``.
    """
    if getattr(schedule, "takes_metric", False) is True:
        return True
    step = getattr(schedule, "step", None)
    parameters = inspect.signature(step).parameters.values() if step is not None else ()
    return any(each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD for each in parameters)


def _after_warmup(course: Course, factor: Factor) -> Factor:
    """Put the rise from 0 to 1 in front of a schedule."""
    return lambda step: course.rise(step) if step < course.warmup_steps else factor(step)


def _wave(num_cycles: float, progress: float) -> float:
    """Return a cosine between 1 and 0."""
    return 0.5 * (1.0 + math.cos(2.0 * math.pi * num_cycles * progress))


def _above(lowest: float, factor: float) -> float:
    """Map 0 to the lowest factor, and 1 to 1."""
    return factor * (1.0 - lowest) + lowest


def _lowest_factor(course: Course, min_lr: float | None, min_lr_rate: float | None) -> float:
    """Return the smallest factor, from a rate or from a factor."""
    if (min_lr is None) == (min_lr_rate is None):
        raise ValueError(f"exactly one of min_lr and min_lr_rate must be given, got {min_lr} and {min_lr_rate}")
    if min_lr_rate is None:
        assert min_lr is not None
        return _not_negative("min_lr", min_lr) / course.base_rate
    return _not_negative("min_lr_rate", min_lr_rate)


def _not_negative(name: str, value: float) -> float:
    if not value >= 0:
        raise ValueError(f"{name} must be >= 0, got {value}")
    return value
