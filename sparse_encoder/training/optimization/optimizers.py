"""Optimizers by name, with their options; knows neither models nor schedules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from sparse_encoder.training.optimization.adafactor import Adafactor
from sparse_encoder.training.optimization.adamw import AdamW
from sparse_encoder.training.optimization.settings import OptimizerSettings

Options = dict[str, Any]  # numbers, booleans and pairs of them


def _number(text: str) -> float:
    """Read a number."""
    return float(text)


def _boolean(text: str) -> bool:
    """Read a truth value."""
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in known:
        raise ValueError(f"not one of {sorted(known)}")
    return known[text.lower()]


class _Entry(NamedTuple):
    """An optimizer and what can be said about it."""

    kind: type[Optimizer]
    options: Mapping[str, Callable[[str], float | bool]]
    """How to read each of ``optim_args``."""
    is_adam: bool = False
    """Whether it takes the betas and epsilon of the training arguments."""
    fixed: Mapping[str, bool] = {}


_TABLE: dict[str, _Entry] = {
    "adafactor": _Entry(
        Adafactor, {"beta1": _number, "clip_threshold": _number, "decay_rate": _number, "eps": _number}
    ),
    "adagrad": _Entry(torch.optim.Adagrad, {"eps": _number, "initial_accumulator_value": _number, "lr_decay": _number}),
    "adamw_hf": _Entry(AdamW, {"correct_bias": _boolean}, is_adam=True),
    "adamw_torch": _Entry(torch.optim.AdamW, {"amsgrad": _boolean}, is_adam=True),
    "adamw_torch_fused": _Entry(torch.optim.AdamW, {"amsgrad": _boolean}, is_adam=True, fixed={"fused": True}),
    "rmsprop": _Entry(
        torch.optim.RMSprop, {"alpha": _number, "centered": _boolean, "eps": _number, "momentum": _number}
    ),
    "sgd": _Entry(torch.optim.SGD, {"dampening": _number, "momentum": _number, "nesterov": _boolean}),
}
OPTIMIZERS = tuple(sorted(_TABLE))


def get_optimizer_cls_and_kwargs(args: OptimizerSettings) -> tuple[type[Optimizer], Options]:
    """Return the class of the optimizer that the arguments name, and what it is built with beside the parameters.

    Weight decay is not in it: the groups of parameters have it.

    Raises:
        ValueError: If the optimizer, or an option in ``optim_args``, is unknown, or a value cannot be read.
        TypeError: If ``optim_args`` is neither a str nor a dict.
    """
    if args.optim not in _TABLE:
        raise ValueError(f"unknown optim {args.optim!r}; choose from {OPTIMIZERS}")
    entry = _TABLE[args.optim]
    options: Options = {"lr": args.learning_rate}
    if entry.is_adam:
        options |= {"betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
    options |= entry.fixed
    for name, text in parse_optim_args(args.optim_args).items():
        if name not in entry.options:
            raise ValueError(
                f"optim_args of {args.optim!r} can be {sorted(entry.options)}, got {name!r}; learning rate, betas, "
                "epsilon and weight decay are arguments of their own"
            )
        try:
            options[name] = entry.options[name](text)
        except ValueError as reason:
            raise ValueError(f"optim_args has {name}={text!r}, which cannot be read: {reason}") from reason
    return entry.kind, options


def parse_optim_args(given: str | Mapping[str, Any] | None) -> dict[str, str]:
    """Return the options in ``"key=value,key=value"`` or in a mapping, as texts by name.

    Raises:
        ValueError: If there is a part without ``=``, or a name comes twice.
        TypeError: If it is neither a str nor a mapping.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {str(name): str(value) for name, value in given.items()}
    if not isinstance(given, str):
        raise TypeError(f'optim_args must be a str such as "key=value,key=value" or a dict, got {given!r}')
    options: dict[str, str] = {}
    for part in given.replace(" ", "").split(",") if given.strip() else ():
        name, equals, value = part.partition("=")
        if not (name and equals and value):
            raise ValueError(f'optim_args must be "key=value,key=value", got {part!r} in {given!r}')
        if name in options:
            raise ValueError(f"optim_args gives {name!r} twice, in {given!r}")
        options[name] = value
    return options


def check_optimizer(args: OptimizerSettings) -> None:
    """Refuse what no optimizer can be built with, by building one of a single number.

    Raises:
        ValueError: If the optimizer or an option is unknown, or a value is out of range.
        TypeError: If ``optim_args`` is neither a str nor a dict.
    """
    kind, options = get_optimizer_cls_and_kwargs(args)
    kind([nn.Parameter(torch.zeros(1))], **options)


def build_optimizer(groups: Sequence[Options], args: OptimizerSettings) -> Optimizer:
    """Return the optimizer that the arguments name.

    Args:
        groups: Parameters and the options that they have of their own, such as ``weight_decay``.
        args: The settings.

    Raises:
        ValueError: If the optimizer or an option is unknown, or a value is out of range.
        TypeError: If ``optim_args`` is neither a str nor a dict.
    """
    kind, options = get_optimizer_cls_and_kwargs(args)
    return kind(list(groups), **options)
