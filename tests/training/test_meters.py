from __future__ import annotations

import json
import math

import pytest
import torch

from sparse_encoder.training.meters import LossMeter, means_of, merge_sums

CPU = torch.device("cpu")


def scalars(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}


def test_means_are_weighted_and_start_anew() -> None:
    meter = LossMeter(filter_not_finite=True)
    meter.add(scalars(loss=1.0, a=4.0), weight=1)
    meter.add(scalars(loss=4.0, a=8.0), weight=3)
    assert means_of(meter.take_sums()) == {"loss": 3.25, "a": 7.0}
    assert meter.sums() == {}


def test_a_term_that_comes_at_times_is_averaged_over_those_times() -> None:
    meter = LossMeter(filter_not_finite=True)
    meter.add(scalars(loss=1.0, a=4.0))
    meter.add(scalars(loss=3.0))
    assert means_of(meter.sums()) == {"loss": 2.0, "a": 4.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_filter_leaves_out_what_is_not_finite(bad: float) -> None:
    meter = LossMeter(filter_not_finite=True)
    for value in (bad, 2.0, 4.0, bad):
        meter.add(scalars(loss=value))
    assert means_of(meter.sums()) == {"loss": 3.0}


def test_nothing_finite_gives_nan() -> None:
    meter = LossMeter(filter_not_finite=True)
    meter.add(scalars(loss=math.nan))
    assert math.isnan(means_of(meter.sums())["loss"])


def test_without_the_filter_nan_is_shown() -> None:
    meter = LossMeter(filter_not_finite=False)
    meter.add(scalars(loss=1.0))
    meter.add(scalars(loss=math.nan))
    assert math.isnan(means_of(meter.sums())["loss"])


def test_a_loaded_meter_goes_on_to_the_same_bits() -> None:
    values = [0.1, 0.7, 1e-3, 12.34]
    straight, first = LossMeter(filter_not_finite=True), LossMeter(filter_not_finite=True)
    for value in values:
        straight.add(scalars(loss=value, a=value / 3), weight=1 / 3)
    for value in values[:2]:
        first.add(scalars(loss=value, a=value / 3), weight=1 / 3)
    second = LossMeter(filter_not_finite=True)
    second.load(json.loads(json.dumps(first.tables())), CPU)
    for value in values[2:]:
        second.add(scalars(loss=value, a=value / 3), weight=1 / 3)
    assert second.sums() == straight.sums()


def test_sums_of_processes_are_added_up() -> None:
    merged = merge_sums([{"loss": (2.0, 1.0)}, {"loss": (4.0, 3.0), "a": (1.0, 1.0)}])
    assert merged == {"loss": (6.0, 4.0), "a": (1.0, 1.0)}
    assert means_of(merged) == {"loss": 1.5, "a": 1.0}
