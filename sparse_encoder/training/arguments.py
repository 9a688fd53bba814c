"""The settings of a training run, named as in sentence-transformers and transformers; knows neither data nor model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

import torch

from sparse_encoder.samplers import BatchSamplers, DefaultBatchSampler
from sparse_encoder.training.argument_checks import check_arguments

BatchSamplerFactory = Callable[..., DefaultBatchSampler]


@dataclass
class SparseEncoderTrainingArguments:
    """Settings of :class:`~sparse_encoder.training.SparseEncoderTrainer`.

    Every field is honoured; a field of the peer that is missing here is refused by name (``TypeError``), and so is a
    value that is not supported (``ValueError``), both at construction.

    Raises:
        ValueError: If a value is out of range, unknown, not supported, or contradicts another.
        TypeError: If a value has the wrong type.
    """

    output_dir: str | None = None
    """Folder of the checkpoints; ``None`` is ``trainer_output``."""

    per_device_train_batch_size: int = 8
    per_device_eval_batch_size: int = 8
    num_train_epochs: float = 3.0
    max_steps: int = -1
    """Updates of the run; -1 leaves it to ``num_train_epochs``."""
    gradient_accumulation_steps: int = 1
    """Batches of one update. In-batch negatives stay those of one batch."""

    learning_rate: float = 5e-5
    lr_scheduler_type: str = "linear"
    lr_scheduler_kwargs: dict[str, Any] | str | None = None
    warmup_steps: float = 0
    """Updates in which the learning rate rises; below 1 it is a ratio of the run."""
    warmup_ratio: float | None = None
    """Older name of a ratio in ``warmup_steps``; used when that is 0."""
    optim: str = "adamw_torch_fused"
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    """Longer gradients are scaled down to this norm; 0 leaves them as they are."""
    learning_rate_mapping: dict[str, float] | str | None = field(default_factory=dict)
    """Learning rates by regular expression, searched for in names of parameters such as ``model.0.weight``, and of
    parameters within a module class such as ``SparseStaticEmbedding.weight``; the first that is found counts."""

    bf16: bool = False
    """Run the model in bfloat16 by autocast; weights, losses and optimizer stay in float32."""
    fp16: bool = False
    """Not supported: ``bf16`` needs no loss scaling and covers the same range as float32."""
    gradient_checkpointing: bool = False
    """Compute the activations of each layer again in the backward instead of keeping them."""
    gradient_checkpointing_kwargs: dict[str, Any] | str | None = None
    """Handed to the model's ``gradient_checkpointing_enable``."""
    activation_checkpointing: bool | None = None
    """The same under its newer name."""

    logging_strategy: str = "steps"
    logging_steps: float = 500
    """Updates between two log rows; below 1 it is a ratio of the run. The same for the other intervals."""
    logging_first_step: bool = False
    logging_nan_inf_filter: bool = True
    """Log the running mean in the place of a loss that is not finite. The update is left out either way."""
    report_to: str | list[str] | None = "none"
    """Only ``"none"`` is supported; callbacks receive every log row."""
    run_name: str | None = None
    """Shown in front of the progress bar."""
    disable_tqdm: bool | None = None
    """Give log rows to :mod:`logging` instead of a progress bar."""

    eval_strategy: str = "no"
    eval_steps: float | None = None
    """``None`` takes ``logging_steps``."""
    eval_delay: float = 0
    """Steps or epochs, by ``eval_strategy``, before the first evaluation."""
    eval_on_start: bool = False
    load_best_model_at_end: bool = False
    metric_for_best_model: str | None = None
    """A key of the evaluation, with or without ``eval_``; ``None`` is the loss if the best model matters."""
    greater_is_better: bool | None = None
    """``None``: unless the metric's name ends with ``loss``."""

    save_strategy: str = "steps"
    """``no``, ``steps``, ``epoch``, or ``best``: whenever the metric improved."""
    save_steps: float = 500
    save_total_limit: int | None = None
    """Checkpoints that are kept; the newest and the best always are."""
    save_only_model: bool = False
    """Save no optimizer and the like; such a checkpoint cannot be resumed from."""
    push_to_hub: bool = False
    """Not supported yet."""

    seed: int = 42
    data_seed: int | None = None
    """Seed of the order of rows; ``None`` takes ``seed``."""
    use_cpu: bool = False
    ignore_data_skip: bool = False
    """Resume at the start of the epoch, with other data or batches if need be, instead of behind the last batch."""
    dataloader_drop_last: bool = False
    dataloader_num_workers: int = 0
    dataloader_pin_memory: bool = True
    dataloader_prefetch_factor: int | None = None

    remove_unused_columns: bool = False
    """Only false: no column is ever removed, here as in sentence-transformers, whose default says otherwise."""
    prompts: str | dict[str, str] | None = None
    """Put in front of the texts of every column, or of the columns that are keys."""
    batch_sampler: BatchSamplers | str | type[DefaultBatchSampler] | BatchSamplerFactory = BatchSamplers.BATCH_SAMPLER
    """A name, or a class or function called as :meth:`SparseEncoderTrainer.get_batch_sampler` is."""
    router_mapping: dict[str, str] | str | None = field(default_factory=dict)
    """The route of each column, for models with a Router."""

    def __post_init__(self) -> None:
        """Bring the values into one form and check them."""
        self.output_dir = "trainer_output" if self.output_dir is None else str(self.output_dir)
        for name in ("eval_strategy", "logging_strategy", "save_strategy", "lr_scheduler_type", "optim"):
            setattr(self, name, _plain(getattr(self, name)))
        for name in ("gradient_checkpointing_kwargs", "lr_scheduler_kwargs", "learning_rate_mapping", "router_mapping"):
            setattr(self, name, _mapping(name, getattr(self, name)))
        self.prompts = _prompts(self.prompts)
        if isinstance(self.batch_sampler, str):
            self.batch_sampler = BatchSamplers(self.batch_sampler)
        if isinstance(self.warmup_ratio, int | float) and 0 <= self.warmup_ratio < 1 and self.warmup_steps == 0:
            self.warmup_steps, self.warmup_ratio = self.warmup_ratio, None
        if self.activation_checkpointing is not None:
            self.gradient_checkpointing = self.activation_checkpointing
        if self.eval_steps is None:
            self.eval_steps = self.logging_steps
        if self.metric_for_best_model is None and (self.load_best_model_at_end or self.save_strategy == "best"):
            self.metric_for_best_model = "loss"
        if self.greater_is_better is None and self.metric_for_best_model is not None:
            self.greater_is_better = not self.metric_for_best_model.endswith("loss")
        check_arguments(self)

    def mapping(self, name: str) -> dict[str, Any]:  # values as the field says
        """Return a field that is a mapping; it may have been given as JSON or None."""
        value = getattr(self, name)
        if not isinstance(value, dict):
            raise TypeError(f"{name} must be a dict, got {value!r}")
        return value

    def to_dict(self) -> dict[str, Any]:  # values of several types
        """Return the settings as JSON can hold them; a class or function is left out."""
        names = [
            each.name for each in fields(self) if not (each.name == "batch_sampler" and callable(self.batch_sampler))
        ]
        return {name: _plain(getattr(self, name)) for name in names}

    def to_json_string(self) -> str:
        """Return :meth:`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context in which the model runs."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16)


def _plain(value: Any) -> Any:  # noqa: ANN401  (any value of a field)
    """Return the value of an enum member, of transformers' enums too, and anything else as it is."""
    return value.value if isinstance(value, Enum) else value


def _mapping(name: str, value: dict[str, Any] | str | None) -> dict[str, Any]:  # values as the field says
    """Return a mapping from itself, from JSON, or from nothing."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as reason:
            raise ValueError(f"{name} must be a dict or a JSON object, got {value!r}") from reason
    if not isinstance(value, dict | None):
        raise ValueError(f"{name} must be a dict or a JSON object, got {value!r}")
    return {} if value is None else dict(value)


def _prompts(value: str | dict[str, str] | None) -> str | dict[str, str] | None:
    """Return prompts from JSON if it is an object, else as they are: a prompt need not be JSON."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError:
            return value
        return parsed if isinstance(parsed, dict) else value
    return value
