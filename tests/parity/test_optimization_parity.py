from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from sparse_encoder.training import optimization as ours
from sparse_encoder.training.optimization.metric_schedules import GreedySchedule
from sparse_encoder.training.optimization.optimizers import get_optimizer_cls_and_kwargs
from sparse_encoder.training.optimization.schedules import SCHEDULE_NAMES

theirs = pytest.importorskip("transformers.optimization")

Anything = Any  # an option, a schedule
TOTAL = 11


def sgd(rate: float = 1e-3) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.zeros(1))]}, {"params": [nn.Parameter(torch.zeros(1))], "lr": rate / 4}]
    return torch.optim.SGD(groups, lr=rate)


def rates_of(schedule: Anything, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    rates: list[float] = []
    for _ in range(steps):
        rates.extend(group["lr"] for group in optimizer.param_groups)
        optimizer.step()
        schedule.step()
    return rates


CASES: list[tuple[str, dict[str, Anything]]] = [
    ("constant_with_warmup", {}),
    ("linear", {}),
    ("cosine", {}),
    ("cosine", {"num_cycles": 1.25}),
    ("cosine_with_restarts", {}),
    ("cosine_with_restarts", {"num_cycles": 3}),
    ("polynomial", {}),
    ("polynomial", {"lr_end": 1e-5, "power": 2.5}),
    ("inverse_sqrt", {}),
    ("inverse_sqrt", {"timescale": 7}),
    ("cosine_with_min_lr", {"min_lr": 1e-4}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.2, "num_cycles": 1.5}),
    ("cosine_warmup_with_min_lr", {"min_lr": 1e-4}),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.2, "warmup_lr_rate": 0.3, "num_cycles": 0.75}),
    ("warmup_stable_decay", {"num_decay_steps": 0}),
    ("warmup_stable_decay", {"num_decay_steps": 4, "min_lr_ratio": 0.2}),
    ("warmup_stable_decay", {"num_decay_steps": 4, "warmup_type": "cosine", "decay_type": "linear"}),
    ("warmup_stable_decay", {"num_decay_steps": 3, "warmup_type": "1-sqrt", "decay_type": "1-sqrt"}),
    ("warmup_stable_decay", {"num_decay_steps": 3, "num_stable_steps": 2, "num_cycles": 1.0}),
]


@pytest.mark.parametrize("warmup_steps", [0, 1, 4, TOTAL])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_schedules_give_the_same_rates(name: str, options: dict[str, Anything], warmup_steps: int) -> None:
    steps = TOTAL + 4
    if warmup_steps == TOTAL:
        options = {**options, "num_decay_steps": 0} if "num_decay_steps" in options else options
        steps = TOTAL - 1 if name == "polynomial" else steps  # theirs divides by zero at the end
    results = []
    for library in (ours, theirs):
        optimizer = sgd()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Both num_training_steps and num_stable_steps")
            schedule = library.get_scheduler(name, optimizer, warmup_steps, TOTAL, scheduler_specific_kwargs=options)
        results.append(rates_of(schedule, optimizer, steps))
    assert results[0] == pytest.approx(results[1], rel=1e-12, abs=1e-18)
    assert len(set(results[0])) > 2 or name in ("constant_with_warmup", "warmup_stable_decay")


def test_constant_rates_are_the_same() -> None:
    for library in (ours, theirs):
        optimizer = sgd()
        assert rates_of(library.get_scheduler("constant", optimizer), optimizer, 3) == [1e-3, 2.5e-4] * 3


METRICS = [5.0, 4.0, 3.5, 3.6, 3.6, 3.7, 3.6, 3.6, 3.6, 3.6, 3.6, 3.6, 2.0, 1.5, 1.0, 1.5, 0.5, 0.4, 0.3, 9.0, 9.0, 9.0]
METRIC_CASES: list[tuple[str, dict[str, Anything]]] = [
    ("reduce_lr_on_plateau", {"patience": 0}),
    ("reduce_lr_on_plateau", {"patience": 1, "factor": 0.5, "cooldown": 1, "min_lr": 1e-4}),
    ("reduce_lr_on_plateau", {"patience": 1, "mode": "max", "threshold": 0.2}),
    ("reduce_lr_on_plateau", {"patience": 0, "threshold_mode": "abs", "threshold": 0.6, "eps": 1e-4}),
    ("greedy", {}),
    ("greedy", {"patience": 1, "factor": 0.5, "min_lr": 1e-5}),
    ("greedy", {"patience": 0, "factor": 0.5, "min_lr": 2e-4, "max_lr": 2e-3, "reset_start": 2}),
    ("greedy", {"patience": 0, "factor": 0.9, "min_lr": 0.0, "cooldown": 2, "warmup": 1}),
    ("greedy", {"patience": 0, "factor": 0.9, "min_lr": 9e-4, "cooldown": 1, "warmup": 2, "reset_start": 1}),
    ("greedy", {"patience": 0, "factor": 0.5, "min_lr": 0.0, "smooth": True, "window_size": 3}),
    ("greedy", {"patience": 0, "min_lr": 0.0, "smooth": True, "window_size": 2, "reset_start": 0}),
    ("greedy", {"patience": 0, "mode": "max", "min_lr": 1e-5, "threshold_mode": "rel", "threshold": 0.1}),
    ("greedy", {"patience": 0, "factor": 0.5, "min_lr": 0.0, "threshold_mode": "rel", "threshold": 0.1, "eps": 1e-4}),
]


@pytest.mark.parametrize(("name", "options"), METRIC_CASES)
def test_schedules_that_follow_a_metric_give_the_same_rates(name: str, options: dict[str, Anything]) -> None:
    results: list[list[float]] = []
    for library in (ours, theirs):
        optimizer = sgd()
        schedule = library.get_scheduler(name, optimizer, scheduler_specific_kwargs=options)
        rates: list[float] = []
        for metric in METRICS:
            schedule.step(metric)
            rates.extend(group["lr"] for group in optimizer.param_groups)
        results.append(rates)
    assert results[0] == pytest.approx(results[1], rel=1e-12)
    assert len(set(results[0])) > 2 or (name == "greedy" and not options)


def test_the_metric_schedule_has_the_defaults_of_the_peer() -> None:
    mine = GreedySchedule(sgd())
    other = theirs.GreedyLR(sgd())
    for name in ("factor", "patience", "cooldown", "warmup", "eps", "reset_start"):
        assert getattr(mine, name) == getattr(other, name)
    assert (mine.min_lr, mine.max_lr) == (other.min_lrs[0], other.max_lrs[0])


FUNCTIONS: list[tuple[str, tuple[int, ...], dict[str, Anything]]] = [
    ("get_constant_schedule", (), {}),
    ("get_constant_schedule_with_warmup", (3,), {}),
    ("get_linear_schedule_with_warmup", (3, TOTAL), {}),
    ("get_cosine_schedule_with_warmup", (3, TOTAL), {"num_cycles": 1.25}),
    ("get_cosine_with_hard_restarts_schedule_with_warmup", (3, TOTAL), {"num_cycles": 2}),
    ("get_polynomial_decay_schedule_with_warmup", (3, TOTAL), {"lr_end": 1e-5, "power": 3.0}),
    ("get_inverse_sqrt_schedule", (3,), {"timescale": 5}),
]


@pytest.mark.parametrize("last_epoch", [-1, 5])
@pytest.mark.parametrize(("name", "steps", "options"), FUNCTIONS)
def test_functions_give_the_same_rates(
    name: str, steps: tuple[int, ...], options: dict[str, Anything], last_epoch: int
) -> None:
    results = []
    for library in (ours, theirs):
        optimizer = sgd()
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        schedule = getattr(library, name)(optimizer, *steps, **options, last_epoch=last_epoch)
        results.append(rates_of(schedule, optimizer, TOTAL))
    assert results[0] == pytest.approx(results[1], rel=1e-12)


def test_names_are_those_of_the_peer() -> None:
    assert {each.value for each in theirs.SchedulerType} == set(SCHEDULE_NAMES)
    assert {each.name: each.value for each in ours.SchedulerType} == {
        each.name: each.value for each in theirs.SchedulerType
    }


def compare(ours_kind: Anything, theirs_kind: Anything, mine: Anything, other: Anything, steps: int = 25) -> float:
    """Return the largest difference after some steps on the same gradients."""
    torch.manual_seed(0)
    shapes = [(4, 3), (5,), (2, 3, 4), ()]
    parameters = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    copies = copy.deepcopy(parameters)
    optimizers = [ours_kind(parameters, **mine), theirs_kind(copies, **other)]
    for step in range(steps):
        for a, b in zip(parameters, copies, strict=True):
            a.grad = torch.randn_like(a) * 10.0 ** (step % 5 - 3)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    return max((a - b).abs().max().item() for a, b in zip(parameters, copies, strict=True))


@pytest.mark.parametrize(
    "options",
    [{}, {"weight_decay": 0.1}, {"beta1": 0.9}, {"beta1": 0.5, "clip_threshold": 0.7, "decay_rate": -0.5}],
)
def test_adafactor_takes_the_same_steps(options: dict[str, Anything]) -> None:
    theirs_options = {**options, "scale_parameter": False, "relative_step": False}
    both = {"lr": 0.01}
    assert compare(ours.Adafactor, theirs.Adafactor, both | options, both | theirs_options) == 0.0


class Settings:
    optim_args: str | None = None
    learning_rate = 0.01
    adam_beta1, adam_beta2, adam_epsilon = 0.8, 0.95, 1e-5

    def __init__(self, optim: str, optim_args: str | None) -> None:
        self.optim, self.optim_args = optim, optim_args


@pytest.mark.parametrize(
    ("name", "optim_args"),
    [
        ("adafactor", None),
        ("adagrad", "lr_decay=0.1,eps=1e-4"),
        ("adamw_torch", None),
        ("adamw_torch_fused", None),
        ("rmsprop", "momentum=0.9,alpha=0.8,centered=True"),
        ("sgd", "momentum=0.9,nesterov=true"),
    ],
)
def test_names_lead_to_the_optimizers_of_the_peer(name: str, optim_args: str | None, tmp_path: Anything) -> None:
    transformers = pytest.importorskip("transformers")
    args = transformers.TrainingArguments(
        str(tmp_path),
        optim=name,
        optim_args=optim_args,
        learning_rate=0.01,
        adam_beta1=0.8,
        adam_beta2=0.95,
        adam_epsilon=1e-5,
        use_cpu=True,
    )
    their_kind, their_options = transformers.Trainer.get_optimizer_cls_and_kwargs(args)
    kind, options = get_optimizer_cls_and_kwargs(Settings(name, optim_args))
    assert kind.__name__ == their_kind.__name__
    assert compare(kind, their_kind, options, their_options) == 0.0
