from __future__ import annotations

import pytest
from training_helpers import Anything

from sparse_encoder.training.optimization.schedules import SCHEDULES, Course, check_schedule

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


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'greedy'; choose from .*'constant'.*'linear'.*'polynomial'"):
        check_schedule("greedy", {})
    with pytest.raises(TypeError, match=r"'cosine' can be \['num_cycles'\], got \['power'\]"):
        check_schedule("cosine", {"power": 2})
    check_schedule("polynomial", {"power": 2, "lr_end": 0})


@pytest.mark.parametrize("warmup_steps", [0, 3])
@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"constant"}))
def test_schedules_equal_those_of_transformers(name: str, warmup_steps: int) -> None:
    torch = pytest.importorskip("torch")
    optimization = pytest.importorskip("transformers.optimization")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = optimization.get_scheduler(name, optimizer, num_warmup_steps=warmup_steps, num_training_steps=11)
    ours = SCHEDULES[name](Course(warmup_steps, 11, base_rate=1e-3))
    for step in range(11):
        assert ours(step) * 1e-3 == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12, abs=1e-18)
        optimizer.step()
        scheduler.step()
