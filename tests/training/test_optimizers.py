from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sparse_encoder.training.checkpoints.optimizer_state import read_optimizer, write_optimizer
from sparse_encoder.training.optimization import Adafactor, AdamW, get_scheduler
from sparse_encoder.training.optimization.optimizers import (
    OPTIMIZERS,
    build_optimizer,
    check_optimizer,
    get_optimizer_cls_and_kwargs,
    parse_optim_args,
)
from sparse_encoder.training.optimization.schedules import takes_metric

Options = dict[str, Any]  # of an optimizer


@dataclass
class Settings:
    optim: str = "adamw_torch"
    optim_args: str | dict[str, Any] | None = None
    learning_rate: float = 0.25
    adam_beta1: float = 0.75
    adam_beta2: float = 0.875
    adam_epsilon: float = 1e-5


ADAM = {"lr": 0.25, "betas": (0.75, 0.875), "eps": 1e-5}
CASES: list[tuple[str, type[torch.optim.Optimizer], str | None, Options]] = [
    ("adafactor", Adafactor, None, {"lr": 0.25}),
    (
        "adafactor",
        Adafactor,
        "beta1=0.5, clip_threshold=2,decay_rate=-0.5,eps=1e-20",
        {"lr": 0.25, "beta1": 0.5, "clip_threshold": 2.0, "decay_rate": -0.5, "eps": 1e-20},
    ),
    ("adagrad", torch.optim.Adagrad, "lr_decay=0.5,eps=1e-3", {"lr": 0.25, "lr_decay": 0.5, "eps": 1e-3}),
    ("adagrad", torch.optim.Adagrad, "initial_accumulator_value=2", {"lr": 0.25, "initial_accumulator_value": 2.0}),
    ("adamw_hf", AdamW, "correct_bias=False", {**ADAM, "correct_bias": False}),
    ("adamw_torch", torch.optim.AdamW, "amsgrad=yes", {**ADAM, "amsgrad": True}),
    ("adamw_torch_fused", torch.optim.AdamW, "", {**ADAM, "fused": True}),
    ("rmsprop", torch.optim.RMSprop, "alpha=0.5,momentum=.25", {"lr": 0.25, "alpha": 0.5, "momentum": 0.25}),
    ("rmsprop", torch.optim.RMSprop, "centered=1,eps=1e-4", {"lr": 0.25, "centered": True, "eps": 1e-4}),
    ("sgd", torch.optim.SGD, "momentum=0.5,nesterov=TRUE", {"lr": 0.25, "momentum": 0.5, "nesterov": True}),
    ("sgd", torch.optim.SGD, "momentum=0.5,dampening=0.1", {"lr": 0.25, "momentum": 0.5, "dampening": 0.1}),
]


@pytest.mark.parametrize(("name", "kind", "options", "expected"), CASES)
def test_the_named_optimizer_is_built_with_its_options(
    name: str, kind: type[torch.optim.Optimizer], options: str | None, expected: Options
) -> None:
    settings = Settings(name, options)
    check_optimizer(settings)
    assert get_optimizer_cls_and_kwargs(settings) == (kind, expected)
    groups = [
        {"params": [nn.Parameter(torch.zeros(2))], "weight_decay": 0.125},
        {"params": [nn.Parameter(torch.zeros(3))], "weight_decay": 0.0, "lr": 0.5},
    ]
    optimizer = build_optimizer(groups, settings)
    assert type(optimizer) is kind
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.5]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.125, 0.0]
    for key, value in expected.items():
        assert optimizer.defaults[key] == value


def test_every_optimizer_is_among_the_cases() -> None:
    assert OPTIMIZERS == ("adafactor", "adagrad", "adamw_hf", "adamw_torch", "adamw_torch_fused", "rmsprop", "sgd")
    assert {case[0] for case in CASES} == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_finds_the_least_of_a_parabola(name: str) -> None:
    torch.manual_seed(0)
    matrix, vector = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(5))
    groups = [{"params": [matrix], "weight_decay": 0.01}, {"params": [vector], "weight_decay": 0.0}]
    optimizer = build_optimizer(groups, Settings(name, learning_rate=0.2))
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = matrix.square().sum() + vector.square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses) < 0.2 * losses[0]


def test_a_mapping_of_options_is_read_as_the_text_is() -> None:
    _, from_mapping = get_optimizer_cls_and_kwargs(Settings("sgd", {"momentum": 0.5, "nesterov": True}))
    _, from_text = get_optimizer_cls_and_kwargs(Settings("sgd", "momentum=0.5,nesterov=True"))
    assert from_mapping == from_text == {"lr": 0.25, "momentum": 0.5, "nesterov": True}


def test_unknown_optimizers_and_options_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown optim 'lion_8bit'; choose from \('adafactor', .*'sgd'\)"):
        check_optimizer(Settings("lion_8bit"))
    with pytest.raises(ValueError, match=r"'sgd' can be \['dampening', 'momentum', 'nesterov'\], got 'weight_decay'"):
        check_optimizer(Settings("sgd", "weight_decay=0.1"))


@pytest.mark.parametrize(
    ("optim_args", "message"),
    [
        ("momentum=fast", "momentum='fast', which cannot be read: could not convert"),
        ("nesterov=perhaps", r"nesterov='perhaps', which cannot be read: not one of \['0', '1', 'false'"),
        ({"momentum": True}, "momentum='True', which cannot be read"),
        ("momentum", "must be \"key=value,key=value\", got 'momentum'"),
        ("momentum=0.5,", "got '' in"),
        ("momentum=0.5,momentum=0.6", "gives 'momentum' twice"),
        ("momentum=-1", "Invalid momentum value: -1.0"),
        ("nesterov=true", "Nesterov momentum requires a momentum"),
    ],
)
def test_options_without_a_meaning_are_refused(optim_args: str | Options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_optimizer(Settings("sgd", optim_args))


def test_options_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError, match="or a dict, got 5"):
        parse_optim_args(5)  # type: ignore[arg-type]
    assert parse_optim_args(None) == parse_optim_args("  ") == {}


@pytest.mark.parametrize(
    ("name", "optim_args"),
    [*((name, None) for name in OPTIMIZERS), ("sgd", "momentum=0.5"), ("adafactor", "beta1=0.5")],
)
@pytest.mark.parametrize("schedule", ["polynomial", "reduce_lr_on_plateau", "greedy"])
def test_every_optimizer_goes_on_from_its_files_to_the_bit(
    name: str, optim_args: str | None, schedule: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    start = [torch.randn(4, 3), torch.randn(5)]
    steps = [[torch.randn_like(each) for each in start] for _ in range(6)]

    def begin() -> tuple[list[nn.Parameter], torch.optim.Optimizer, Any]:
        parameters = [nn.Parameter(each.clone()) for each in start]
        groups = [{"params": [each], "weight_decay": 0.1 * index} for index, each in enumerate(parameters)]
        optimizer = build_optimizer(groups, Settings(name, optim_args, learning_rate=0.02))
        options = {"patience": 0, "factor": 0.5, "min_lr": 0.0} if schedule != "polynomial" else {}
        return parameters, optimizer, get_scheduler(schedule, optimizer, 0, 8, options)

    def go(parts: tuple[list[nn.Parameter], torch.optim.Optimizer, Any], part: slice) -> None:
        parameters, optimizer, rates = parts
        for gradients, metric in zip(steps[part], [3.0, 2.0, 1.0, 1.5, 0.5, 0.2][part], strict=True):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
            if takes_metric(rates):
                rates.step(metric)
            else:
                rates.step()

    straight = begin()
    go(straight, slice(None))
    first, second = begin(), begin()
    go(first, slice(0, 3))
    write_optimizer(tmp_path, first[1], first[2], ["a", "b"])
    read_optimizer(tmp_path, second[1], second[2], ["a", "b"])
    with torch.no_grad():
        for old, new in zip(first[0], second[0], strict=True):
            new.copy_(old)
    go(second, slice(3, None))
    assert all(torch.equal(a, b) for a, b in zip(straight[0], second[0], strict=True))
    assert [group["lr"] for group in second[1].param_groups] == [group["lr"] for group in straight[1].param_groups]
    assert straight[1].param_groups[0]["lr"] != 0.02
