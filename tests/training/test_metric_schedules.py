from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from sparse_encoder.training.optimization.metric_schedules import GreedySchedule, PlateauSchedule
from sparse_encoder.training.optimization.schedules import build_scheduler

Anything = Any  # an option, a schedule


def sgd(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates], lr=1.0)


def rates_after(schedule: Anything, metrics: list[float]) -> list[float]:
    rates = []
    for metric in metrics:
        schedule.step(metric)
        rates.append(schedule.optimizer.param_groups[0]["lr"])
    return rates


def test_a_plateau_lowers_the_rates() -> None:
    schedule = PlateauSchedule(sgd(1.0, 0.5), factor=0.5, patience=1, min_lr=0.2)
    assert rates_after(schedule, [3, 2, 2, 2, 2, 2, 2]) == [1, 1, 1, 0.5, 0.5, 0.25, 0.25]
    assert schedule.get_last_lr() == [0.25, 0.2]


def test_larger_may_be_better() -> None:
    schedule = PlateauSchedule(sgd(1.0), mode="max", factor=0.5, patience=0)
    assert rates_after(schedule, [1, 2, 3, 2, 4]) == [1, 1, 1, 0.5, 0.5]


def test_a_metric_that_rises_and_falls_moves_the_rates() -> None:
    schedule = GreedySchedule(sgd(0.8), factor=0.5, patience=1, min_lr=0.1, max_lr=1.0)
    assert rates_after(schedule, [5, 4, 4, 4, 4, 4, 3, 2]) == [0.8, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.5]


def test_a_rate_at_its_least_for_long_begins_anew() -> None:
    schedule = GreedySchedule(sgd(0.8, 0.4), factor=0.5, patience=0, min_lr=0.2, reset_start=2)
    assert rates_after(schedule, [1, 1, 1, 1]) == [1.0, 0.5, 0.25, 0.2]
    assert schedule.get_last_lr() == [0.2, 0.2]
    assert rates_after(schedule, [1]) == [0.8]
    assert schedule.get_last_lr() == [0.8, 0.4]


def test_pauses_follow_changes() -> None:
    schedule = GreedySchedule(sgd(0.8), factor=0.5, patience=0, min_lr=0.1, max_lr=8.0, warmup=1, cooldown=2)
    assert rates_after(schedule, [5, 4, 3]) == [1.6, 1.6, 3.2]
    assert rates_after(schedule, [9, 9, 9, 9, 9]) == [3.2, 1.6, 1.6, 1.6, 0.8]


def test_the_mean_of_the_last_metrics_may_be_judged() -> None:
    schedule = GreedySchedule(sgd(0.5), factor=0.5, patience=0, min_lr=0.0, max_lr=8.0, smooth=True, window_size=2)
    assert rates_after(schedule, [4, 5, 2, 3]) == [1.0, 0.5, 1.0, 2.0]  # means 4, 4.5, 3.5, 2.5


@pytest.mark.parametrize("kind", [PlateauSchedule, GreedySchedule])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_metric_that_is_not_finite_is_never_better(kind: Anything, bad: float) -> None:
    schedule = kind(sgd(1.0), factor=0.5, patience=1, min_lr=0.0)
    assert rates_after(schedule, [bad, 4, bad, bad]) == [1.0, 1.0, 1.0, 0.5]
    assert json.loads(json.dumps(schedule.state_dict(), allow_nan=False))["best"] == 4


@pytest.mark.parametrize("kind", [PlateauSchedule, GreedySchedule])
def test_a_step_without_a_metric_changes_nothing(kind: Anything) -> None:
    schedule = kind(sgd(1.0), patience=0)
    before = schedule.state_dict()
    schedule.step()
    assert schedule.state_dict() == before
    assert schedule.get_last_lr() == [1.0]


CASES: list[tuple[Anything, dict[str, Anything]]] = [
    (PlateauSchedule, {"factor": 0.5, "patience": 1, "cooldown": 1}),
    (GreedySchedule, {"factor": 0.5, "patience": 1, "cooldown": 1, "min_lr": 0.3, "reset_start": 2}),
    (GreedySchedule, {"factor": 0.5, "patience": 0, "min_lr": 0.0, "smooth": True, "window_size": 3}),
]
METRICS = [5.0, 4.0, 4.5, 4.5, 3.0, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 1.0, 0.5, 2.0]


@pytest.mark.parametrize(("kind", "options"), CASES)
@pytest.mark.parametrize("half", [0, 1, 5, 9])
def test_a_schedule_goes_on_from_a_state_as_if_it_had_not_stopped(kind: Anything, options: Anything, half: int) -> None:
    straight = kind(sgd(0.8), **options)
    expected = rates_after(straight, METRICS)
    first = kind(sgd(0.8), **options)
    rates_after(first, METRICS[:half])
    state = json.loads(json.dumps(first.state_dict(), allow_nan=False))
    second = kind(sgd(0.8), **options)
    second.load_state_dict(state)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert rates_after(second, METRICS[half:]) == expected[half:]
    assert second.state_dict() == straight.state_dict()
    assert len(set(expected)) > 1


class Settings:
    lr_scheduler_type = "reduce_lr_on_plateau"
    warmup_steps = 0.0

    def __init__(self, greater_is_better: bool | None, **options: Anything) -> None:
        self.greater_is_better = greater_is_better
        self.options = options

    def mapping(self, name: str) -> dict[str, Anything]:
        return self.options


def test_the_direction_is_that_of_the_best_model_unless_said() -> None:
    def rates(settings: Settings) -> list[float]:
        return rates_after(build_scheduler(sgd(1.0), settings, max_steps=9), [1, 2])

    assert rates(Settings(True, patience=0)) == [1.0, 1.0]
    assert rates(Settings(None, patience=0)) == [1.0, pytest.approx(0.1)]
    assert rates(Settings(False, patience=0)) == [1.0, pytest.approx(0.1)]
    assert rates(Settings(True, patience=0, mode="min")) == [1.0, pytest.approx(0.1)]
