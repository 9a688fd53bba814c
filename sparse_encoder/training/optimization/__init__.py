"""Parameter groups, optimizers, schedules and the guarded update."""

from sparse_encoder.training.optimization.accumulator import GradientAccumulator
from sparse_encoder.training.optimization.adafactor import Adafactor
from sparse_encoder.training.optimization.adamw import AdamW
from sparse_encoder.training.optimization.functions import (
    SchedulerType,
    get_constant_schedule,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_cosine_with_hard_restarts_schedule_with_warmup,
    get_inverse_sqrt_schedule,
    get_linear_schedule_with_warmup,
    get_polynomial_decay_schedule_with_warmup,
    get_scheduler,
)

__all__ = [
    "Adafactor",
    "AdamW",
    "GradientAccumulator",
    "SchedulerType",
    "get_constant_schedule",
    "get_constant_schedule_with_warmup",
    "get_cosine_schedule_with_warmup",
    "get_cosine_with_hard_restarts_schedule_with_warmup",
    "get_inverse_sqrt_schedule",
    "get_linear_schedule_with_warmup",
    "get_polynomial_decay_schedule_with_warmup",
    "get_scheduler",
]
