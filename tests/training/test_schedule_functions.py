from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sparse_encoder.training import optimization
from sparse_encoder.training.optimization import (
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
from sparse_encoder.training.optimization.metric_schedules import PlateauSchedule

Anything = Any  # a schedule
GOLDEN = [  # of the peer, W=2 and T=8, 4 digits; trainer.md
    (get_constant_schedule, (), {}, [1.0] * 9),
    (get_constant_schedule_with_warmup, (2,), {}, [0, 0.5] + [1.0] * 7),
    (get_linear_schedule_with_warmup, (2, 8), {}, [0, 0.5, 1, 0.8333, 0.6667, 0.5, 0.3333, 0.1667, 0]),
    (get_cosine_schedule_with_warmup, (2, 8), {}, [0, 0.5, 1, 0.933, 0.75, 0.5, 0.25, 0.067, 0]),
    (
        get_cosine_with_hard_restarts_schedule_with_warmup,
        (2, 8),
        {"num_cycles": 2},
        [0, 0.5, 1, 0.75, 0.25, 1, 0.75, 0.25, 0],
    ),
    (get_inverse_sqrt_schedule, (2,), {}, [0, 0.5, 1, 0.8165, 0.7071, 0.6325, 0.5774, 0.5345, 0.5]),
    (
        get_polynomial_decay_schedule_with_warmup,
        (2, 8),
        {"lr_end": 0.0, "power": 2.0},
        [0, 0.5, 1, 0.6944, 0.4444, 0.25, 0.1111, 0.0278, 0],
    ),
]


def sgd() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)


def rates(schedule: Anything, steps: int = 9) -> list[float]:
    seen = []
    for _ in range(steps):
        seen.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return seen


@pytest.mark.parametrize(("function", "steps", "options", "expected"), GOLDEN)
def test_functions_follow_the_golden_values(
    function: Anything, steps: tuple[int, ...], options: dict[str, Anything], expected: list[float]
) -> None:
    assert rates(function(sgd(), *steps, **options)) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("function", "steps", "options", "expected"), GOLDEN)
def test_functions_go_on_behind_the_last_step(
    function: Anything, steps: tuple[int, ...], options: dict[str, Anything], expected: list[float]
) -> None:
    optimizer = sgd()
    optimizer.param_groups[0]["initial_lr"] = 1.0
    assert rates(function(optimizer, *steps, **options, last_epoch=3), 5) == pytest.approx(expected[4:], abs=5e-5)


def test_a_schedule_is_found_by_name_and_by_member() -> None:
    for name in ("linear", SchedulerType.LINEAR):
        schedule = get_scheduler(name, sgd(), num_warmup_steps=2, num_training_steps=8)
        assert rates(schedule) == pytest.approx(GOLDEN[2][3], abs=5e-5)
    squared = get_scheduler("polynomial", sgd(), 2, 8, {"power": 2.0, "lr_end": 0.0})
    assert rates(squared) == pytest.approx(GOLDEN[6][3], abs=5e-5)
    plateau = get_scheduler("reduce_lr_on_plateau", sgd(), scheduler_specific_kwargs={"patience": 3})
    assert isinstance(plateau, PlateauSchedule) and plateau.patience == 3


@pytest.mark.parametrize(
    ("name", "options"), [(each, {}) for each in ("linear", "constant_with_warmup", "inverse_sqrt", "polynomial")]
)
def test_a_missing_warm_up_is_refused(name: str, options: dict[str, Anything]) -> None:
    with pytest.raises(ValueError, match=f"the '{name}' schedule needs num_warmup_steps"):
        get_scheduler(name, sgd(), num_training_steps=8, scheduler_specific_kwargs=options)


@pytest.mark.parametrize("name", ["linear", "cosine", "cosine_with_restarts", "polynomial", "warmup_stable_decay"])
def test_a_missing_length_is_refused(name: str) -> None:
    options = {"num_decay_steps": 2} if name == "warmup_stable_decay" else {}
    with pytest.raises(ValueError, match=f"the '{name}' schedule needs num_training_steps"):
        get_scheduler(name, sgd(), num_warmup_steps=2, scheduler_specific_kwargs=options)


def test_some_need_no_length() -> None:
    assert rates(get_scheduler("constant_with_warmup", sgd(), 2), 4) == [0.0, 0.5, 1.0, 1.0]
    assert rates(get_scheduler("inverse_sqrt", sgd(), 2), 9) == pytest.approx(GOLDEN[5][3], abs=5e-5)
    assert rates(get_scheduler("constant", sgd()), 3) == [1.0] * 3
    options = {"num_decay_steps": 2, "num_stable_steps": 1, "decay_type": "linear"}
    schedule = get_scheduler("warmup_stable_decay", sgd(), 2, scheduler_specific_kwargs=options)
    assert rates(schedule, 7) == [0.0, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0]


def test_steps_without_a_meaning_are_refused() -> None:
    with pytest.raises(ValueError, match="num_warmup_steps must be at most num_training_steps=8, got 9"):
        get_linear_schedule_with_warmup(sgd(), 9, 8)
    with pytest.raises(ValueError, match="num_warmup_steps must be >= 0, got -1"):
        get_scheduler("cosine", sgd(), -1, 8)
    with pytest.raises(ValueError, match="'constant' schedule has no warm-up, got 3"):
        get_scheduler("constant", sgd(), 3, 8)


def test_unknown_names_and_options_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown lr_scheduler_type 'cosin'"):
        get_scheduler("cosin", sgd(), 2, 8)
    with pytest.raises(TypeError, match=r"can be \[\], got \['num_cycles'\]"):
        get_scheduler("linear", sgd(), 2, 8, {"num_cycles": 2})


def test_public_names_are_sorted_and_there() -> None:
    assert optimization.__all__ == sorted(optimization.__all__)
    assert all(hasattr(optimization, name) for name in optimization.__all__)
    assert len(optimization.__all__) == 12
