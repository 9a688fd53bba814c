"""Fill the "auto" fields of a DeepSpeed configuration from training arguments; plain values, nothing of DeepSpeed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

from sparse_encoder.training.arguments import TrainingArguments

AUTO = "auto"
_BATCH_SIZES = ("train_micro_batch_size_per_gpu", "train_batch_size")


class RunSize(NamedTuple):
    """What the arguments do not say about a run."""

    num_processes: int
    max_steps: int | None = None
    """Updates of the run; without it the schedule's lengths stay "auto"."""
    hidden_size: int | None = None
    """Of the model; without it the bucket sizes of ZeRO stay "auto"."""


def propagate_args_to_deepspeed(
    config: Mapping[str, Any],  # a DeepSpeed configuration: values of many types, nested
    args: TrainingArguments,
    size: RunSize,
    *,
    auto_find_batch_size: bool = False,
) -> dict[str, Any]:
    """Return a configuration in which every "auto" that the arguments know stands for its value.

    Fields that are not there stay away: DeepSpeed has defaults for them. Training with DeepSpeed is not supported by
    the trainer; this is for scripts that hand the model to it themselves.

    Args:
        config: Not changed.
        args: The settings.
        size: Processes, updates and model size.
        auto_find_batch_size: The batch size is still being looked for, so a fixed one in ``config`` may differ.

    Raises:
        ValueError: If a field has a value that contradicts the arguments; names all of them.
    """
    filled = copy.deepcopy(dict(config))
    fixed, free = _fixed(args, size), _free(filled, size)
    may_differ = {*free, *(_BATCH_SIZES if auto_find_batch_size else ())}
    different = []
    for path, value in (fixed | free).items():
        node, name = _node(filled, path)
        if node.get(name) == AUTO:
            node[name] = value
        elif node.get(name, value) != value and path not in may_differ:
            different.append(f"{path} is {node[name]!r} and the arguments say {value!r}")
    if different:
        raise ValueError(
            f"the DeepSpeed configuration contradicts the arguments: {'; '.join(different)}; "
            'give "auto" in the configuration to take the arguments\' value'
        )
    return filled


def _fixed(args: TrainingArguments, size: RunSize) -> dict[str, Any]:  # values of several types
    """Return what the arguments say, by path in the configuration; other values there are contradictions."""
    batch = args.per_device_train_batch_size
    values = {
        "train_micro_batch_size_per_gpu": batch,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "train_batch_size": size.num_processes * batch * args.gradient_accumulation_steps,
        "gradient_clipping": args.max_grad_norm,
        "optimizer.params.lr": args.learning_rate,
        "optimizer.params.betas": [args.adam_beta1, args.adam_beta2],
        "optimizer.params.eps": args.adam_epsilon,
        "optimizer.params.weight_decay": args.weight_decay,
        "scheduler.params.warmup_max_lr": args.learning_rate,
        "fp16.enabled": args.fp16 or args.fp16_full_eval,
        "bf16.enabled": args.bf16 or args.bf16_full_eval,
    }
    if size.max_steps is not None:
        values["scheduler.params.total_num_steps"] = size.max_steps
        values["scheduler.params.warmup_num_steps"] = max(1, args.get_warmup_steps(size.max_steps))
    return values


def _free(config: Mapping[str, Any], size: RunSize) -> dict[str, float]:
    """Return proposals for fields that no argument is about; any other value of them is as good."""
    values: dict[str, float] = {"scheduler.params.warmup_min_lr": 0}
    if size.hidden_size is not None:
        square = size.hidden_size * size.hidden_size
        values["zero_optimization.reduce_bucket_size"] = square
        if config.get("zero_optimization", {}).get("stage") == 3:
            values["zero_optimization.stage3_prefetch_bucket_size"] = int(0.9 * square)
            values["zero_optimization.stage3_param_persistence_threshold"] = 10 * size.hidden_size
    return values


def _node(config: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """Return the dict that a path ends in, an empty one if it is not there, and the last name."""
    *parents, name = path.split(".")
    for parent in parents:
        config = config.get(parent, {})
    return config, name
