"""The rules that training arguments obey, told in one place; changes nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from sparse_encoder.samplers import BatchSamplers
from sparse_encoder.training.optimization.schedules import check_schedule

if TYPE_CHECKING:
    from sparse_encoder.training.arguments import SparseEncoderTrainingArguments

OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd")
STRATEGIES = {
    "logging_strategy": ("epoch", "no", "steps"),
    "eval_strategy": ("epoch", "no", "steps"),
    "save_strategy": ("best", "epoch", "no", "steps"),
    "optim": OPTIMIZERS,
}
_INF = math.inf
_INTEGERS = {  # name: smallest value
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "max_steps": -1,
    "gradient_accumulation_steps": 1,
    "save_total_limit": 1,
    "seed": 0,
    "data_seed": 0,
    "dataloader_num_workers": 0,
    "dataloader_prefetch_factor": 1,
}
_NUMBERS = {  # name: smallest value, first value that is too large
    "num_train_epochs": (0.0, _INF),
    "learning_rate": (0.0, _INF),
    "warmup_steps": (0.0, _INF),
    "warmup_ratio": (0.0, 1.0),
    "weight_decay": (0.0, _INF),
    "adam_beta1": (0.0, 1.0),
    "adam_beta2": (0.0, 1.0),
    "adam_epsilon": (0.0, _INF),
    "max_grad_norm": (0.0, _INF),
    "eval_delay": (0.0, _INF),
}
_INTERVALS = ("logging_steps", "eval_steps", "save_steps")
_OPTIONAL = ("data_seed", "dataloader_prefetch_factor", "save_total_limit", "warmup_ratio")


def check_arguments(args: SparseEncoderTrainingArguments) -> None:
    """Check every rule.

    Raises:
        ValueError: If a value is out of range, unknown, not supported, or contradicts another.
        TypeError: If a value has the wrong type.
    """
    _check_numbers(args)
    for name, known in STRATEGIES.items():
        if getattr(args, name) not in known:
            raise ValueError(f"unknown {name} {getattr(args, name)!r}; choose from {known}")
    check_schedule(args.lr_scheduler_type, args.mapping("lr_scheduler_kwargs"))
    _check_mappings(args)
    _check_support(args)
    _check_combinations(args)
    if args.load_best_model_at_end:
        _check_best_model(args)


def _check_numbers(args: SparseEncoderTrainingArguments) -> None:
    """Check types and ranges of numbers; a boolean is none."""
    for name, smallest in _INTEGERS.items():
        value = getattr(args, name)
        if value is None and name in _OPTIONAL:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be a whole number, got {value!r}")
        if value < smallest:
            raise ValueError(f"{name} must be >= {smallest}, got {value}")
    for name, (smallest_number, too_large) in _NUMBERS.items():
        value = getattr(args, name)
        if value is None and name in _OPTIONAL:
            continue
        if not smallest_number <= _number(name, value) < too_large:
            raise ValueError(f"{name} must be >= {smallest_number} and < {too_large}, got {value}")
    for name in _INTERVALS:
        value = _number(name, getattr(args, name))
        if not value > 0 or (value >= 1 and value != int(value)):
            raise ValueError(f"{name} must be a whole number of steps or a ratio between 0 and 1, got {value}")
    if args.max_steps == 0:
        raise ValueError("max_steps must be positive, or -1 for num_train_epochs, got 0")
    if args.max_steps < 0 and not args.num_train_epochs > 0:
        raise ValueError(f"num_train_epochs must be > 0, got {args.num_train_epochs}")
    if args.warmup_steps >= 1 and args.warmup_steps != int(args.warmup_steps):
        raise ValueError(f"warmup_steps must be a whole number or a ratio below 1, got {args.warmup_steps}")


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return value


def _check_mappings(args: SparseEncoderTrainingArguments) -> None:
    """Check what is given by column or by name of a parameter."""
    for pattern, rate in args.mapping("learning_rate_mapping").items():
        if not 0 <= _number(f"the learning rate of {pattern!r}", rate) < _INF:
            raise ValueError(f"learning_rate_mapping needs rates >= 0, got {rate} for {pattern!r}")
    for name in ("prompts", "router_mapping"):
        value = getattr(args, name)
        if not isinstance(value, dict):
            if not isinstance(value, str | None):
                raise TypeError(f"{name} must be a str or a dict from column to str, got {value!r}")
            continue
        for column, text in value.items():
            if isinstance(text, dict):
                raise ValueError(
                    f"{name} by dataset needs several datasets, which are not supported yet, got {column!r}: {text!r}; "
                    "give a dict from column to str"
                )
            if not isinstance(text, str):
                raise TypeError(f"{name} must map columns to str, got {text!r} for {column!r}")


def _check_support(args: SparseEncoderTrainingArguments) -> None:
    """Refuse what the peer has and this library does not have yet."""
    if args.fp16:
        raise ValueError("fp16=True is not supported; take bf16=True")
    if args.push_to_hub:
        raise ValueError("push_to_hub=True is not supported yet; call model.push_to_hub after training")
    if args.remove_unused_columns is not False:
        raise ValueError(
            "remove_unused_columns must be False: every column is used; dataset.remove_columns removes some"
        )
    if args.report_to not in (None, "none", [], ["none"]):
        raise ValueError(f"report_to can be 'none' so far, got {args.report_to!r}; a callback receives every log row")
    if isinstance(args.batch_sampler, BatchSamplers) and args.batch_sampler is not BatchSamplers.BATCH_SAMPLER:
        raise ValueError(
            f"batch_sampler can be 'batch_sampler', a subclass of DefaultBatchSampler or a function so far, "
            f"got {args.batch_sampler.value!r}"
        )
    if not isinstance(args.batch_sampler, BatchSamplers) and not callable(args.batch_sampler):
        raise TypeError(f"batch_sampler must be a name, a class or a function, got {args.batch_sampler!r}")
    on_gpu = torch.cuda.is_available() and not args.use_cpu
    if args.bf16 and on_gpu and not torch.cuda.is_bf16_supported():
        raise ValueError("bf16=True needs a GPU with bfloat16; this one has none")


def _check_combinations(args: SparseEncoderTrainingArguments) -> None:
    if args.warmup_ratio is not None:
        raise ValueError(
            f"warmup_steps={args.warmup_steps} and warmup_ratio={args.warmup_ratio} contradict each other; give one"
        )
    if args.dataloader_prefetch_factor is not None and args.dataloader_num_workers == 0:
        raise ValueError("dataloader_prefetch_factor needs dataloader_num_workers > 0")
    if args.save_strategy == "best" and args.eval_strategy == "no":
        raise ValueError("save_strategy='best' needs an eval_strategy other than 'no'")


def _check_best_model(args: SparseEncoderTrainingArguments) -> None:
    """Check that every evaluation that may turn out the best has a checkpoint."""
    if args.save_strategy == "best":
        return
    if args.eval_strategy == "no" or args.eval_strategy != args.save_strategy:
        raise ValueError(
            "load_best_model_at_end needs the same eval_strategy and save_strategy, 'steps' or 'epoch', "
            f"got {args.eval_strategy!r} and {args.save_strategy!r}"
        )
    if args.eval_strategy != "steps":
        return
    save_steps, eval_steps = args.save_steps, args.eval_steps
    assert eval_steps is not None
    if (save_steps < 1) != (eval_steps < 1):
        raise ValueError(
            "load_best_model_at_end needs save_steps and eval_steps both as ratios or both in steps, "
            f"got {save_steps} and {eval_steps}"
        )
    if round(save_steps / eval_steps, 6) != round(save_steps / eval_steps):
        raise ValueError(
            f"load_best_model_at_end needs save_steps to be a multiple of eval_steps, got {save_steps} and {eval_steps}"
        )
