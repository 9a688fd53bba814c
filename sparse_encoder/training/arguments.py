"""The settings of any training run, named as in transformers; knows neither data nor model.

What sparse encoders need in addition is in :mod:`sparse_encoder.training.sparse_arguments`.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

import torch

from sparse_encoder.training.argument_checks import check_arguments, check_types
from sparse_encoder.training.argument_values import asks_for_nothing, read_mapping
from sparse_encoder.training.events.reporting import tracker_names
from sparse_encoder.training.process_facts import ProcessFacts


@dataclass
class TrainingArguments(ProcessFacts):
    """Settings of :class:`~sparse_encoder.training.Trainer`.

    Every field is honoured. A value that is not supported is refused by name at construction; so is an unknown field.

    Raises:
        ValueError: If a value is out of range, unknown, not supported, or contradicts another.
        TypeError: If a value has the wrong type.
    """

    output_dir: str | None = None
    """Folder of the checkpoints, ``~`` is expanded; ``None`` is ``trainer_output``."""
    overwrite_output_dir: bool = False
    """Start a new run in a folder that holds another run's checkpoints."""
    do_train: bool = False
    """For scripts to read, as are the next three; a trainer does what its methods are called for."""
    do_eval: bool = False
    """True if there is an ``eval_strategy``."""
    do_predict: bool = False
    resume_from_checkpoint: str | None = None

    per_device_train_batch_size: int = 8
    per_device_eval_batch_size: int = 8
    auto_find_batch_size: bool = False
    """Start again with a smaller batch, 0.9 times the last, when memory does not suffice."""
    num_train_epochs: float = 3.0
    max_steps: int = -1
    """Updates of the run; -1 leaves it to ``num_train_epochs``."""
    gradient_accumulation_steps: int = 1
    """Batches of one update. In-batch negatives stay those of one batch; regularizers judge the whole update."""
    average_tokens_across_devices: bool = True
    """Weight a loss that is a mean over tokens by the tokens of all processes."""
    torch_empty_cache_steps: int | None = None
    """Updates after which the device's cache of freed memory is given back."""

    learning_rate: float = 5e-5
    lr_scheduler_type: str = "linear"
    lr_scheduler_kwargs: dict[str, Any] | str | None = None
    warmup_steps: float = 0
    """Updates in which the learning rate rises; below 1 it is a ratio of the run."""
    warmup_ratio: float | None = None
    """Older name of a ratio in ``warmup_steps``; 0 leaves that as it is."""
    optim: str = "adamw_torch_fused"
    optim_args: dict[str, Any] | str | None = None
    """Further options of the optimizer: ``"key=value,key=value"``."""
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    """Longer gradients are scaled down to this norm; 0, or ``None``, leaves them as they are."""
    learning_rate_mapping: dict[str, float] | str | None = field(default_factory=dict)
    """Learning rates by regular expression, searched for in names of parameters such as ``model.0.weight``, and of
    parameters within a module class such as ``SparseStaticEmbedding.weight``; the first that is found counts."""
    label_smoothing_factor: float = 0.0
    """Part of the target that is spread over all labels."""

    bf16: bool = False
    """Run the model in bfloat16 by autocast; weights, losses and optimizer stay in float32."""
    fp16: bool = False
    """The same in float16, with dynamic loss scaling."""
    bf16_full_eval: bool = False
    """Evaluate outside of training with weights in bfloat16."""
    fp16_full_eval: bool = False
    tf32: bool | None = None
    """Whether a GPU may multiply float32 matrices with fewer bits; ``None`` leaves it as it is."""
    gradient_checkpointing: bool = False
    """Compute the activations of each layer again in the backward instead of keeping them."""
    gradient_checkpointing_kwargs: dict[str, Any] | str | None = None
    """Handed to the model's ``gradient_checkpointing_enable``."""
    activation_checkpointing: bool | None = None
    """The same two under their newer names."""
    activation_checkpointing_kwargs: dict[str, Any] | str | None = None
    torch_compile: bool = False
    """Run the model through ``torch.compile``; giving one of the next two switches it on."""
    torch_compile_backend: str | None = None
    """``None`` is ``inductor``."""
    torch_compile_mode: str | None = None

    logging_strategy: str = "steps"
    logging_steps: float = 500
    """Updates between two log rows; below 1 it is a ratio of the run. The same for the other intervals."""
    logging_first_step: bool = False
    logging_nan_inf_filter: bool = True
    """Log the running mean in the place of a loss that is not finite. The update is left out either way."""
    logging_dir: str | None = None
    """Folder of TensorBoard; ``None`` is a new one in ``runs`` of ``output_dir``."""
    log_level: str = "passive"
    """Level of the library's log on the first process; ``passive`` leaves it as it is."""
    log_level_replica: str = "warning"
    """The same on the other processes, unless ``log_level`` is passive."""
    log_on_each_node: bool = True
    """Whether the first process of every machine counts as first for the log level."""
    include_num_input_tokens_seen: str | bool = "no"
    """Log the tokens that were trained on: ``all``, or ``non_padding``."""
    report_to: list[str] | str | None = "none"
    """Names of trackers that receive the log, kept as a list; ``all`` is every installed one."""
    project: str = "sparse-encoder"
    """Project of the run in Weights & Biases."""
    run_name: str | None = None
    """Name of the run in trackers and in front of the progress bar."""
    disable_tqdm: bool | None = None
    """Write log rows alone, without a progress bar."""

    eval_strategy: str = "no"
    eval_steps: float | None = None
    """``None`` takes ``logging_steps``."""
    eval_delay: float = 0
    """Steps or epochs, by ``eval_strategy``, before the first evaluation."""
    eval_on_start: bool = False
    evaluation_strategy: str | None = None
    """Older name of ``eval_strategy``."""
    prediction_loss_only: bool = False
    """Compute no more than the loss in evaluations."""
    include_for_metrics: list[str] = field(default_factory=list)
    """What ``compute_metrics`` gets beside predictions and labels: ``inputs``, ``loss``."""
    batch_eval_metrics: bool = False
    """Call ``compute_metrics`` for every batch, with tensors, and with ``compute_result=True`` for the last."""
    eval_accumulation_steps: int | None = None
    """Batches of predictions that stay on the device before they move to the CPU; ``None`` moves them at the end."""
    eval_do_concat_batches: bool = True
    """Whether predictions come as one array instead of a list of batches."""
    eval_use_gather_object: bool = False
    """Gather predictions of several processes as objects, for outputs that are not tensors."""
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
    on_save_error: str = "stop"
    """Whether a checkpoint that cannot be written ends the run (``stop``) or is logged (``warn``)."""
    save_on_signal: bool = False
    """On SIGTERM and SIGINT finish the update, save a checkpoint, and exit with 143 or 130."""
    restore_callback_states_from_checkpoint: bool = False
    """Give callbacks that keep a state the one of the resumed checkpoint."""
    push_to_hub: bool = False
    hub_model_id: str | None = None
    """Repository, ``owner/name``; ``None`` is the name of ``output_dir``, of the token's owner."""
    hub_strategy: str = "every_save"
    """``end``, ``every_save``, ``checkpoint`` or ``all_checkpoints``."""
    hub_token: str | None = field(default=None, repr=False)
    hub_private_repo: bool | None = None
    hub_always_push: bool = False
    """Push even while the last push runs."""
    hub_revision: str | None = None

    seed: int = 42
    data_seed: int | None = None
    """Seed of the order of rows; ``None`` takes ``seed``."""
    full_determinism: bool = False
    """Let torch use deterministic algorithms only."""
    use_cpu: bool = False
    ignore_data_skip: bool = False
    """Resume at the start of the epoch, with other data or batches if need be, instead of behind the last batch."""
    dataloader_drop_last: bool = False
    dataloader_num_workers: int = 0
    dataloader_pin_memory: bool = True
    """False with ``use_cpu``."""
    dataloader_persistent_workers: bool = False
    dataloader_prefetch_factor: int | None = None
    dataloader_in_order: bool = True
    dataloader_multiprocessing_context: str | None = None
    remove_unused_columns: bool = True
    """Leave out columns that the model's forward does not take."""
    label_names: list[str] | None = None
    """Columns that hold labels; ``None``: the forward's parameters with "label" in their name."""
    train_sampling_strategy: str = "random"
    """Order of rows: ``random``, ``sequential``, or ``group_by_length``."""
    length_column_name: str = "length"
    """Column with the number of tokens, for ``group_by_length``; made from ``input_ids`` if it is missing."""

    ddp_find_unused_parameters: bool | None = None
    """Whether a batch may leave out parameters; ``None``: only if gradients are not checkpointed."""
    ddp_bucket_cap_mb: int | None = None
    ddp_broadcast_buffers: bool = False
    """Only false: each process keeps its own buffers within an update, and all agree on them after it."""
    ddp_static_graph: bool | None = None
    ddp_backend: str | None = None
    ddp_timeout: int = 1800
    """Seconds that processes wait for each other."""
    fsdp: list[str] | str | None = None
    """Shard parameters over processes: ``full_shard`` and its companions, or ``True`` for it alone."""
    fsdp_config: dict[str, Any] | str | None = None

    debug: str = ""
    """This and the following have one value only; every other is refused with the reason."""
    local_rank: int = -1
    skip_memory_metrics: bool = True
    save_safetensors: bool = True
    save_on_each_node: bool = False
    enable_jit_checkpoint: bool = False
    deepspeed: None = None
    accelerator_config: None = None
    parallelism_config: None = None
    use_liger_kernel: bool = False
    liger_kernel_config: None = None
    trackio_space_id: None = None
    trackio_bucket_id: None = None
    trackio_static_space_id: None = None
    use_cache: bool = False
    neftune_noise_alpha: None = None
    optim_target_modules: None = None

    def __post_init__(self) -> None:
        """Bring the values into one form and check them."""
        self.output_dir = "trainer_output" if self.output_dir is None else self.output_dir
        for each in fields(self):
            setattr(self, each.name, plain(getattr(self, each.name)))
        self._take_older_names()
        check_types(self)
        self.output_dir = os.path.expanduser(self.output_dir)
        for name in ("gradient_checkpointing_kwargs", "learning_rate_mapping", "lr_scheduler_kwargs", "fsdp_config"):
            setattr(self, name, read_mapping(name, getattr(self, name)))
        if self.torch_compile_backend is not None or self.torch_compile_mode is not None:
            self.torch_compile = True
        if self.torch_compile and self.torch_compile_backend is None:
            self.torch_compile_backend = "inductor"
        self.report_to = tracker_names(self.report_to)
        self.do_eval = self.do_eval or self.eval_strategy != "no"
        self.dataloader_pin_memory = self.dataloader_pin_memory and not self.use_cpu
        if isinstance(self.include_num_input_tokens_seen, bool):
            self.include_num_input_tokens_seen = "all" if self.include_num_input_tokens_seen else "no"
        if self.eval_steps is None:
            self.eval_steps = self.logging_steps
        if self.metric_for_best_model is None and (self.load_best_model_at_end or self.save_strategy == "best"):
            self.metric_for_best_model = "loss"
        if self.greater_is_better is None and self.metric_for_best_model is not None:
            self.greater_is_better = not self.metric_for_best_model.endswith("loss")
        check_arguments(self)

    def _take_older_names(self) -> None:
        """Give the values of aliases to the fields they stand for."""
        ratio = self.warmup_ratio
        if isinstance(ratio, int | float) and (ratio == 0 or (0 < ratio < 1 and self.warmup_steps == 0)):
            self.warmup_steps, self.warmup_ratio = self.warmup_steps or ratio, None
        if self.activation_checkpointing is not None:
            self.gradient_checkpointing = self.activation_checkpointing
        if self.activation_checkpointing_kwargs is not None:
            self.gradient_checkpointing_kwargs = self.activation_checkpointing_kwargs
        for name, value in _FOR_NONE.items():
            if getattr(self, name) is None:
                setattr(self, name, value() if callable(value) else value)
        self.debug = self.debug or ""  # of some versions an empty list
        if asks_for_nothing(self.accelerator_config):
            self.accelerator_config = None
        if isinstance(self.fsdp, bool):
            self.fsdp = "full_shard" if self.fsdp else None
        if self.evaluation_strategy is not None:
            warnings.warn("evaluation_strategy is now called eval_strategy", FutureWarning, stacklevel=4)
            self.eval_strategy, self.evaluation_strategy = self.evaluation_strategy, None

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Return the updates in which the learning rate rises, of a run of so many updates."""
        steps = self.warmup_steps
        return math.ceil(num_training_steps * steps) if steps < 1 else int(steps)

    def mapping(self, name: str) -> dict[str, Any]:  # values as the field says
        """Return a field that is a mapping; it may have been given as JSON or None."""
        value = getattr(self, name)
        if not isinstance(value, dict):
            raise TypeError(f"{name} must be a dict, got {value!r}")
        return value

    def to_dict(self) -> dict[str, Any]:  # values of several types
        """Return the settings as JSON can hold them: no classes or functions, and no tokens."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: f"<{name.upper()}>" if name.endswith("_token") and value is not None else _as_json(value)
            for name, value in values.items()
            if not callable(value)
        }

    def to_json_string(self) -> str:
        """Return :meth:`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_sanitized_dict(self) -> dict[str, Any]:  # values of several types
        """Return the settings as trackers take them: numbers, strings and booleans; anything else as text."""
        values = {**self.to_dict(), "train_batch_size": self.train_batch_size, "eval_batch_size": self.eval_batch_size}
        return {
            name: each if isinstance(each, bool | int | float | str) else str(each) for name, each in values.items()
        }

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context in which the model runs."""
        dtype = torch.float16 if self.fp16 else torch.bfloat16
        return torch.autocast(device.type, dtype=dtype, enabled=self.bf16 or self.fp16)


_FOR_NONE: dict[str, Any] = {  # what None stands for, of fields that are not optional
    "gradient_checkpointing": False,
    "ddp_broadcast_buffers": False,
    "include_for_metrics": list,
    "max_grad_norm": 0.0,
    "use_cpu": False,
}


def plain(value: Any) -> Any:  # noqa: ANN401  (any value of a field)
    """Return the value of an enum member, of transformers' enums too, a path as text, and anything else as it is."""
    return value.value if isinstance(value, Enum) else os.fspath(value) if isinstance(value, os.PathLike) else value


def _as_json(value: Any) -> Any:  # noqa: ANN401  (as above)
    """Return the value of an enum member, the name of a torch type, and anything else as it is."""
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else plain(value)
