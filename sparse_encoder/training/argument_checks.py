"""The rules that training arguments obey, told in one place; changes nothing."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import TYPE_CHECKING

import torch

from sparse_encoder.training.optimization.optimizers import OPTIMIZERS, check_optimizer
from sparse_encoder.training.optimization.schedules import check_schedule
from sparse_encoder.training.sharding import read_sharding

if TYPE_CHECKING:
    from sparse_encoder.training.arguments import TrainingArguments


STRATEGIES = {
    "logging_strategy": ("epoch", "no", "steps"),
    "eval_strategy": ("epoch", "no", "steps"),
    "save_strategy": ("best", "epoch", "no", "steps"),
    "hub_strategy": ("all_checkpoints", "checkpoint", "end", "every_save"),
    "on_save_error": ("stop", "warn"),
    "train_sampling_strategy": ("group_by_length", "random", "sequential"),
    "include_num_input_tokens_seen": ("all", "no", "non_padding"),
    "log_level": ("critical", "debug", "error", "info", "passive", "warning"),
    "log_level_replica": ("critical", "debug", "error", "info", "passive", "warning"),
    "optim": OPTIMIZERS,
}
_ONLY = {
    "debug": "torch.autograd.detect_anomaly finds where a value stops being finite",
    "ddp_broadcast_buffers": "processes agree on buffers after each update, not in each forward",
    "local_rank": "the launcher says which process this is (torchrun, accelerate launch)",
    "skip_memory_metrics": "a profiler measures memory better; torch.profiler has one",
    "save_safetensors": "weights are saved in no other format",
    "save_on_each_node": "checkpoints are written once, into a folder that all machines see",
    "enable_jit_checkpoint": "save_on_signal=True saves when the process is told to end",
    "deepspeed": "training is sharded by fsdp; sparse_encoder.training.deepspeed_config fills a configuration",
    "accelerator_config": "the trainer's own arguments say all of it",
    "parallelism_config": "training is sharded by fsdp",
    "use_liger_kernel": "its kernels are for models of transformers",
    "liger_kernel_config": "its kernels are for models of transformers",
    "trackio_space_id": "trackio is no tracker here; report_to names the others",
    "trackio_bucket_id": "trackio is no tracker here; report_to names the others",
    "trackio_static_space_id": "trackio is no tracker here; report_to names the others",
    "use_cache": "a cache of keys and values is of no use in training",
    "neftune_noise_alpha": "it is not supported; a forward hook on the word embeddings adds noise",
    "optim_target_modules": "its optimizers are not supported",
}
"""Fields of transformers that have one value here, and why."""
_KINDS = {"bool": "True or False", "str": "a text", "list[str]": "a list of texts"}
_OWN = "sparse_encoder."
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
    "eval_accumulation_steps": 1,
    "torch_empty_cache_steps": 1,
    "ddp_bucket_cap_mb": 1,
    "ddp_timeout": 1,
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
    "label_smoothing_factor": (0.0, 1.0),
}
_INTERVALS = ("logging_steps", "eval_steps", "save_steps")
_OPTIONAL = (
    "data_seed",
    "dataloader_prefetch_factor",
    "ddp_bucket_cap_mb",
    "eval_accumulation_steps",
    "save_total_limit",
    "torch_empty_cache_steps",
    "warmup_ratio",
)


def check_types(args: TrainingArguments) -> None:
    """Check fields that are a boolean, a text, or a list of texts, perhaps None, by what they are declared as.

    Raises:
        TypeError: If one is something else.
    """
    own = [kind for kind in reversed(type(args).__mro__) if kind.__module__.startswith(_OWN)]
    declared = {name: str(each) for kind in own for name, each in _annotations(kind).items()}
    for each in fields(args):  # whose types parsers of command lines change
        kinds, value = set(declared.get(each.name, "").split(" | ")), getattr(args, each.name)
        if each.name in _ONLY or not kinds <= {*_KINDS, "None"}:
            continue
        if not (value is None and "None" in kinds) and not any(_is_a(value, kind) for kind in kinds):
            told = " or ".join(_KINDS[kind] for kind in sorted(kinds - {"None"}))
            raise TypeError(f"{each.name} must be {told}, got {value!r}")


def _annotations(kind: type) -> dict[str, object]:
    """Return what a class itself declares."""
    return dict(vars(kind).get("__annotations__", {}))


def _is_a(value: object, kind: str) -> bool:
    """Return whether a value is of a declared kind."""
    if kind == "list[str]":
        return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    return isinstance(value, {"bool": bool, "str": str}.get(kind, ()))


def check_arguments(args: TrainingArguments) -> None:
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
    check_optimizer(args)
    for name, reason in _ONLY.items():
        only = type(args).__dataclass_fields__[name].default
        if getattr(args, name) not in (only, None):
            raise ValueError(f"{name} must be {only!r}, got {getattr(args, name)!r}: {reason}")
    for pattern, rate in args.mapping("learning_rate_mapping").items():
        try:
            re.compile(pattern)
        except re.error as reason:
            raise ValueError(f"learning_rate_mapping: {pattern!r} is no regular expression: {reason}") from reason
        if not 0 <= check_number(f"the learning rate of {pattern!r}", rate) < _INF:
            raise ValueError(f"learning_rate_mapping needs rates >= 0, got {rate} for {pattern!r}")
    _check_precision(args)
    _check_combinations(args)
    _check_sharding(args)
    if args.load_best_model_at_end:
        _check_best_model(args)


def _check_sharding(args: TrainingArguments) -> None:
    """Check how the model is to be shared out among processes, and what does not go with that."""
    if read_sharding(args.fsdp, args.mapping("fsdp_config")) is None:
        return
    for name in ("auto_find_batch_size", "torch_compile", "bf16_full_eval", "fp16_full_eval"):
        if getattr(args, name):
            raise ValueError(f"{name} does not go with fsdp: it needs whole parameters")
    if args.optim == "adafactor":
        raise ValueError("optim='adafactor' does not go with fsdp: its state does not have the shape of parameters")


def _check_numbers(args: TrainingArguments) -> None:
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
        if not smallest_number <= check_number(name, value) < too_large:
            raise ValueError(f"{name} must be >= {smallest_number} and < {too_large}, got {value}")
    for name in _INTERVALS:
        value = check_number(name, getattr(args, name))
        if not value > 0 or (value >= 1 and value != int(value)):
            raise ValueError(f"{name} must be a whole number of steps or a ratio between 0 and 1, got {value}")
    if args.max_steps == 0:
        raise ValueError("max_steps must be positive, or -1 for num_train_epochs, got 0")
    if args.max_steps < 0 and not args.num_train_epochs > 0:
        raise ValueError(f"num_train_epochs must be > 0, got {args.num_train_epochs}")
    if args.warmup_steps >= 1 and args.warmup_steps != int(args.warmup_steps):
        raise ValueError(f"warmup_steps must be a whole number or a ratio below 1, got {args.warmup_steps}")


def check_number(name: str, value: object) -> float:
    """Return a value that is a number; a boolean is none.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return value


def _check_precision(args: TrainingArguments) -> None:
    """Check that there is one 16-bit type at most, and a device for it."""
    for first, second in (("fp16", "bf16"), ("fp16_full_eval", "bf16_full_eval")):
        if getattr(args, first) and getattr(args, second):
            raise ValueError(f"{first} and {second} exclude each other; give one")
    on_gpu = torch.cuda.is_available() and not args.use_cpu
    if args.bf16 and on_gpu and not torch.cuda.is_bf16_supported():
        raise ValueError("bf16=True needs a GPU with bfloat16; this one has none")
    if args.tf32 and not on_gpu:
        raise ValueError("tf32=True needs a GPU")


def _check_combinations(args: TrainingArguments) -> None:
    if args.warmup_ratio is not None:
        raise ValueError(
            f"warmup_steps={args.warmup_steps} and warmup_ratio={args.warmup_ratio} contradict each other; give one"
        )
    if args.dataloader_num_workers == 0:
        for name in (
            "dataloader_prefetch_factor",
            "dataloader_persistent_workers",
            "dataloader_multiprocessing_context",
        ):
            if getattr(args, name):
                raise ValueError(f"{name} needs dataloader_num_workers > 0")
    if args.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy") and args.eval_strategy == "no":
        raise ValueError(f"lr_scheduler_type={args.lr_scheduler_type!r} needs an eval_strategy other than 'no'")
    if unknown := sorted(set(args.include_for_metrics) - {"inputs", "loss"}):
        raise ValueError(f"include_for_metrics can hold 'inputs' and 'loss', got {unknown}")
    if args.save_strategy == "best" and args.eval_strategy == "no":
        raise ValueError("save_strategy='best' needs an eval_strategy other than 'no'")


def _check_best_model(args: TrainingArguments) -> None:
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
