"""Schedules as functions under the names that scripts written for transformers import; knows no training arguments."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from sparse_encoder.training.optimization.metric_schedules import METRIC_SCHEDULES
from sparse_encoder.training.optimization.schedules import (
    AnySchedule,
    Course,
    Factor,
    check_schedule,
    constant,
    constant_with_warmup,
    cosine,
    cosine_with_restarts,
    inverse_sqrt,
    linear,
    polynomial,
    schedule_of,
)


class SchedulerType(str, Enum):
    """Names of schedules."""

    LINEAR = "linear"
    COSINE = "cosine"
    COSINE_WITH_RESTARTS = "cosine_with_restarts"
    POLYNOMIAL = "polynomial"
    CONSTANT = "constant"
    CONSTANT_WITH_WARMUP = "constant_with_warmup"
    INVERSE_SQRT = "inverse_sqrt"
    REDUCE_ON_PLATEAU = "reduce_lr_on_plateau"
    COSINE_WITH_MIN_LR = "cosine_with_min_lr"
    COSINE_WARMUP_WITH_MIN_LR = "cosine_warmup_with_min_lr"
    WARMUP_STABLE_DECAY = "warmup_stable_decay"
    GREEDY = "greedy"


_WITHOUT_WARMUP = {"constant", *METRIC_SCHEDULES}
_WITHOUT_LENGTH = {*_WITHOUT_WARMUP, "constant_with_warmup", "inverse_sqrt"}


def get_scheduler(
    name: str | SchedulerType,
    optimizer: Optimizer,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    scheduler_specific_kwargs: Mapping[str, Any] | None = None,
) -> AnySchedule:
    """Return a schedule by name.

    Args:
        name: One of :class:`SchedulerType`.
        optimizer: Whose learning rates are set.
        num_warmup_steps: Steps in which the rate rises; not needed by those that have no warm-up.
        num_training_steps: All steps; not needed by those that never fall to an end.
        scheduler_specific_kwargs: Options of this schedule.

    Raises:
        ValueError: If the schedule is unknown, a number of steps that it needs is missing, or the warm-up is negative,
            longer than the run, or given to a schedule without one.
        TypeError: If it has no such option.
    """
    options = dict(scheduler_specific_kwargs or {})
    name = name.value if isinstance(name, SchedulerType) else name
    check_schedule(name, options)
    if num_warmup_steps is None and name not in _WITHOUT_WARMUP:
        raise ValueError(f"the {name!r} schedule needs num_warmup_steps")
    may_lack_length = name in _WITHOUT_LENGTH or (name == "warmup_stable_decay" and "num_stable_steps" in options)
    if num_training_steps is None and not may_lack_length:
        raise ValueError(f"the {name!r} schedule needs num_training_steps")
    return schedule_of(name, optimizer, _course(optimizer, num_warmup_steps or 0, num_training_steps), options)


def get_constant_schedule(optimizer: Optimizer, last_epoch: int = -1) -> LambdaLR:
    """Return a schedule that keeps the learning rate.

    Args:
        optimizer: Whose learning rates are set.
        last_epoch: The last step of a run that goes on; -1 begins anew. The same for the other functions.
    """
    return LambdaLR(optimizer, constant(_course(optimizer, 0, None)), last_epoch)


def get_constant_schedule_with_warmup(optimizer: Optimizer, num_warmup_steps: int, last_epoch: int = -1) -> LambdaLR:
    """Return a schedule that rises to the learning rate and keeps it.

    Raises:
        ValueError: If the warm-up is negative.
    """
    return LambdaLR(optimizer, constant_with_warmup(_course(optimizer, num_warmup_steps, None)), last_epoch)


def get_linear_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, last_epoch: int = -1
) -> LambdaLR:
    """Return a schedule that rises to the learning rate and falls to 0.

    Raises:
        ValueError: If the warm-up is negative or longer than the run.
    """
    return LambdaLR(optimizer, linear(_course(optimizer, num_warmup_steps, num_training_steps)), last_epoch)


def get_cosine_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
) -> LambdaLR:
    """Return a schedule that rises to the learning rate and falls along ``num_cycles`` waves of a cosine.

    Raises:
        ValueError: If the warm-up is negative or longer than the run.
    """
    factor = cosine(_course(optimizer, num_warmup_steps, num_training_steps), num_cycles=num_cycles)
    return LambdaLR(optimizer, factor, last_epoch)


def get_cosine_with_hard_restarts_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: int = 1,
    last_epoch: int = -1,
) -> LambdaLR:
    """Return a schedule that rises to the learning rate and falls ``num_cycles`` times along half a cosine.

    Raises:
        ValueError: If the warm-up is negative or longer than the run.
    """
    factor = cosine_with_restarts(_course(optimizer, num_warmup_steps, num_training_steps), num_cycles=num_cycles)
    return LambdaLR(optimizer, factor, last_epoch)


def get_polynomial_decay_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    lr_end: float = 1e-7,
    power: float = 1.0,
    last_epoch: int = -1,
) -> LambdaLR:
    """Return a schedule that rises to the learning rate and falls to ``lr_end``, as a power of what is left.

    Raises:
        ValueError: If the warm-up is negative or longer than the run, or ``lr_end`` is not below the optimizer's
            default rate.
    """
    factor = polynomial(_course(optimizer, num_warmup_steps, num_training_steps), lr_end=lr_end, power=power)
    return LambdaLR(optimizer, factor, last_epoch)


def get_inverse_sqrt_schedule(
    optimizer: Optimizer, num_warmup_steps: int, timescale: int | None = None, last_epoch: int = -1
) -> LambdaLR:
    """Return a schedule that rises to the learning rate and falls with the inverse square root of the step.

    Raises:
        ValueError: If the warm-up is negative, or ``timescale`` is not positive.
    """
    factor: Factor = inverse_sqrt(_course(optimizer, num_warmup_steps, None), timescale=timescale)
    return LambdaLR(optimizer, factor, last_epoch)


def _course(optimizer: Optimizer, warmup_steps: int, total_steps: int | None) -> Course:
    """Return the course of a run; one without a known length may be of any."""
    if warmup_steps < 0:
        raise ValueError(f"num_warmup_steps must be >= 0, got {warmup_steps}")
    if total_steps is None:
        total_steps = 2**62
    if warmup_steps > total_steps:
        raise ValueError(f"num_warmup_steps must be at most num_training_steps={total_steps}, got {warmup_steps}")
    return Course(warmup_steps, total_steps, base_rate=optimizer.defaults["lr"])
