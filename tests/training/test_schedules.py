from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from sparse_encoder.training.optimization.schedules import (
    SCHEDULE_NAMES,
    SCHEDULES,
    Course,
    build_scheduler,
    check_schedule,
    takes_metric,
)

Anything = Any  # an option, a schedule

COURSE = Course(warmup_steps=2, total_steps=8, base_rate=1e-3)
GOLDEN = {  # of the peer, 4 digits; trainer.md
    "linear": [0, 0.5, 1, 0.8333, 0.6667, 0.5, 0.3333, 0.1667, 0],
    "cosine": [0, 0.5, 1, 0.933, 0.75, 0.5, 0.25, 0.067, 0],
    "inverse_sqrt": [0, 0.5, 1, 0.8165, 0.7071, 0.6325, 0.5774, 0.5345, 0.5],
    "constant_with_warmup": [0, 0.5, 1, 1, 1, 1, 1, 1, 1],
}


def values(name: str, course: Course = COURSE, options: Anything = None) -> list[float]:
    factor = SCHEDULES[name](course, **(options or {}))
    return [factor(step) for step in range(9)]


@pytest.mark.parametrize("name", GOLDEN)
def test_schedules_follow_the_golden_values(name: str) -> None:
    assert values(name) == pytest.approx(GOLDEN[name], abs=5e-4)


def test_cosine_with_restarts_begins_again_in_the_middle() -> None:
    expected = [0, 0.5, 1, 0.75, 0.25, 1, 0.75, 0.25, 0]
    assert values("cosine_with_restarts", options={"num_cycles": 2}) == pytest.approx(expected, abs=1e-9)


def test_constant_is_one_and_refuses_a_warm_up() -> None:
    assert values("constant", Course(0, 8)) == [1.0] * 9
    with pytest.raises(ValueError, match="2 steps; take 'constant_with_warmup'"):
        values("constant")


def test_polynomial_ends_at_its_end_rate() -> None:
    squared = values("polynomial", options={"lr_end": 1e-4, "power": 2.0})
    assert squared[:3] == pytest.approx([0, 0.5, 1])
    assert squared[5] == pytest.approx((0.9 * 0.5**2) + 0.1)
    assert squared[8] == pytest.approx(0.1)
    assert SCHEDULES["polynomial"](COURSE, lr_end=1e-4)(50) == pytest.approx(0.1)


def test_polynomial_needs_an_end_below_the_rate() -> None:
    with pytest.raises(ValueError, match="below the learning rate 0.001, got 0.1"):
        values("polynomial", options={"lr_end": 0.1})


def test_inverse_sqrt_without_warm_up_takes_ten_thousand_steps() -> None:
    assert SCHEDULES["inverse_sqrt"](Course(0, 8))(30_000) == pytest.approx(0.5)
    assert SCHEDULES["inverse_sqrt"](COURSE, timescale=4)(14) == pytest.approx(0.5)


def test_a_cosine_to_a_smallest_rate_ends_there() -> None:
    by_rate = values("cosine_with_min_lr", options={"min_lr_rate": 0.25})
    assert by_rate[:3] == pytest.approx([0, 0.5, 1])
    assert by_rate[5] == pytest.approx(0.5 * 0.75 + 0.25)
    assert by_rate[8] == pytest.approx(0.25)
    assert values("cosine_with_min_lr", options={"min_lr": 0.25e-3}) == pytest.approx(by_rate)


def test_a_cosine_with_a_rate_from_the_first_step_is_one_step_ahead() -> None:
    expected = [0.5, 1.0] + values("cosine_with_min_lr", options={"min_lr_rate": 0.25})[3:]
    assert values("cosine_warmup_with_min_lr", options={"min_lr_rate": 0.25})[:8] == pytest.approx(expected)
    started = values("cosine_warmup_with_min_lr", Course(5, 9), {"min_lr_rate": 0, "warmup_lr_rate": 0.2})
    assert started[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.5 + 0.5 * 0.5**0.5])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 0.5, 1, 1, 1, 0.75, 0.25, 0, 0]),
        ({"decay_type": "linear"}, [0, 0.5, 1, 1, 1, 2 / 3, 1 / 3, 0, 0]),
        ({"decay_type": "linear", "min_lr_ratio": 0.4}, [0.4, 0.7, 1, 1, 1, 0.8, 0.6, 0.4, 0.4]),
        ({"warmup_type": "cosine", "decay_type": "1-sqrt"}, [0, 0.5, 1, 1, 1, 0.42265, 0.18350, 0, 0]),
        ({"warmup_type": "1-sqrt", "decay_type": "linear"}, [0, 0.29289, 1, 1, 1, 2 / 3, 1 / 3, 0, 0]),
        ({"num_stable_steps": 1, "decay_type": "linear"}, [0, 0.5, 1, 1, 2 / 3, 1 / 3, 0, 0, 0]),
    ],
)
def test_a_stable_part_lies_between_rise_and_fall(options: Anything, expected: list[float]) -> None:
    course = Course(2, 7)
    assert values("warmup_stable_decay", course, {"num_decay_steps": 3, **options}) == pytest.approx(expected, abs=1e-5)


def test_rise_and_fall_must_go_into_the_run() -> None:
    with pytest.raises(ValueError, match="at most the 8 updates of the run together, got 2 and 7"):
        values("warmup_stable_decay", options={"num_decay_steps": 7})
    assert values("warmup_stable_decay", options={"num_decay_steps": 6})[2] == 1.0


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"constant"}))
def test_a_run_that_is_all_warm_up_rises_to_the_base_rate(name: str) -> None:
    options = {"warmup_stable_decay": {"num_decay_steps": 0}}.get(name, {})
    if "min_lr" in name:
        options = {"min_lr_rate": 0.0}
    factors = values(name, Course(8, 8, base_rate=1e-3), options)
    first = 1 if name == "cosine_warmup_with_min_lr" else 0
    assert factors[:8] == pytest.approx([(step + first) / 8 for step in range(8)])


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'cosin'; choose from .*'constant'.*'greedy'.*'polynomial'"):
        check_schedule("cosin", {})
    with pytest.raises(TypeError, match=r"'cosine' can be \['num_cycles'\], got \['power'\]"):
        check_schedule("cosine", {"power": 2})
    with pytest.raises(TypeError, match=r"'warmup_stable_decay' must have \['num_decay_steps'\]"):
        check_schedule("warmup_stable_decay", {"min_lr_ratio": 0.1})
    with pytest.raises(TypeError, match=r"'greedy' can be .*'warmup'.*got \['verbose'\]"):
        check_schedule("greedy", {"verbose": True})
    check_schedule("polynomial", {"power": 2, "lr_end": 0})
    check_schedule("warmup_stable_decay", {"num_decay_steps": 1000})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("polynomial", {"lr_end": -1e-7}, "lr_end must be >= 0, got -1e-07"),
        ("cosine_with_min_lr", {}, "exactly one of min_lr and min_lr_rate must be given, got None and None"),
        ("cosine_with_min_lr", {"min_lr": 0.1, "min_lr_rate": 0.1}, "must be given, got 0.1 and 0.1"),
        ("cosine_with_min_lr", {"min_lr": -0.1}, "min_lr must be >= 0, got -0.1"),
        ("cosine_warmup_with_min_lr", {"min_lr_rate": -0.1}, "min_lr_rate must be >= 0"),
        ("cosine_warmup_with_min_lr", {"min_lr": 0, "warmup_lr_rate": -1}, "warmup_lr_rate must be >= 0"),
        ("inverse_sqrt", {"timescale": 0}, "timescale must be > 0, got 0"),
        ("warmup_stable_decay", {"num_decay_steps": -1}, "num_decay_steps must be >= 0"),
        ("warmup_stable_decay", {"num_decay_steps": 1, "num_stable_steps": -1}, "num_stable_steps must be >= 0"),
        ("warmup_stable_decay", {"num_decay_steps": 1, "min_lr_ratio": -1}, "min_lr_ratio must be >= 0"),
        ("warmup_stable_decay", {"num_decay_steps": 1, "decay_type": "sqrt"}, r"decay_type 'sqrt'; .*\['1-sqrt', 'cos"),
        ("warmup_stable_decay", {"num_decay_steps": 1, "warmup_type": "x"}, "unknown warmup_type 'x'"),
        ("reduce_lr_on_plateau", {"mode": "least"}, "mode must be 'max' or 'min', got 'least'"),
        ("reduce_lr_on_plateau", {"factor": 1.0}, "factor must be > 0 and < 1, got 1.0"),
        ("greedy", {"threshold_mode": "x"}, "threshold_mode must be 'abs' or 'rel'"),
        ("greedy", {"smooth": True, "window_size": 0}, "window_size must be >= 1"),
        ("greedy", {"min_lr": -1}, "min_lr must be >= 0, got -1"),
    ],
)
def test_options_without_a_meaning_are_refused(name: str, options: Anything, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_schedule(name, options)


@dataclass
class Settings:
    lr_scheduler_type: str = "linear"
    lr_scheduler_kwargs: Anything = field(default_factory=dict)
    warmup_steps: float = 0
    greater_is_better: bool | None = None

    def mapping(self, name: str) -> dict[str, Anything]:
        return dict(getattr(self, name))


def sgd(rate: float = 0.8) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def rates_of(optimizer: torch.optim.Optimizer, schedule: Anything, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_a_ratio_of_warm_up_is_rounded_up() -> None:
    optimizer = sgd()
    schedule = build_scheduler(optimizer, Settings(warmup_steps=0.3), max_steps=11)  # 4 steps
    assert rates_of(optimizer, schedule, 5) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])


def test_a_group_with_a_rate_of_its_own_keeps_its_ratio() -> None:
    optimizer = sgd()
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))], "lr": 0.2})
    schedule = build_scheduler(optimizer, Settings("polynomial", {"lr_end": 0.4}), max_steps=2)
    assert schedule.get_last_lr() == [0.8, 0.2]
    for _ in range(2):
        optimizer.step()
        schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.4, 0.1])  # the end rate is one of the base rate


@pytest.mark.parametrize("name", ["linear", "greedy"])
def test_a_warm_up_longer_than_the_run_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="at most the 11 updates of the run, got 12"):
        build_scheduler(sgd(), Settings(name, warmup_steps=12), max_steps=11)
    assert build_scheduler(sgd(), Settings(warmup_steps=11), max_steps=11).get_last_lr() == [0.0]


@pytest.mark.parametrize("name", ["constant", "greedy", "reduce_lr_on_plateau"])
def test_a_warm_up_of_a_schedule_without_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"the '{name}' schedule has no warm-up, got 2 steps"):
        build_scheduler(sgd(), Settings(name, warmup_steps=2), max_steps=11)


def test_every_name_is_built() -> None:
    needed = {"warmup_stable_decay": {"num_decay_steps": 2}, "cosine_with_min_lr": {"min_lr": 0.1}}
    needed["cosine_warmup_with_min_lr"] = needed["cosine_with_min_lr"]
    assert len(SCHEDULE_NAMES) == 12
    for name in SCHEDULE_NAMES:
        optimizer = sgd()
        schedule = build_scheduler(optimizer, Settings(name, needed.get(name, {})), max_steps=4)
        assert takes_metric(schedule) == (name in ("greedy", "reduce_lr_on_plateau"))
        rates = rates_of(optimizer, schedule, 4)
        assert all(rate > 0 for rate in rates)
        assert (rates == [0.8] * 4) == (name.startswith("constant") or takes_metric(schedule))


def test_a_schedule_of_torch_that_takes_a_metric_is_known_as_one() -> None:
    assert takes_metric(torch.optim.lr_scheduler.ReduceLROnPlateau(sgd()))
    assert not takes_metric(torch.optim.lr_scheduler.ConstantLR(sgd()))
