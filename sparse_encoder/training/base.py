"""The part of a trainer that does not depend on the task: device, optimizer, schedule, callbacks and log.

It knows neither data nor losses; the loop is in :mod:`sparse_encoder.training.loop`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import nn
from torch.optim import Optimizer

from sparse_encoder.training.arguments import TrainingArguments
from sparse_encoder.training.checkpoints.optimizer_state import Schedule
from sparse_encoder.training.events.flow import DefaultFlowCallback
from sparse_encoder.training.events.progress import PrinterCallback, ProgressCallback
from sparse_encoder.training.events.protocol import CallbackHandler, TrainerCallback
from sparse_encoder.training.optimization.groups import (
    ParameterGroup,
    build_optimizer,
    build_scheduler,
    find_group,
    learning_rates_of,
    parameter_groups,
)
from sparse_encoder.training.state import TrainerControl, TrainerState

_NOT_SUPPORTED = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "XLA")


class TrainerBase:
    """Own what every run needs and answer for it.

    Args:
        model: What is trained; it is moved to the device.
        args: The settings.
        callbacks: Called after the default flow and before the progress bar.
        optimizers: An optimizer and a schedule in the place of those that the settings name; each may be None.
    """

    loss: nn.Module
    """What is optimized: usually a loss that holds the model, so that its own parameters are trained too."""

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        callbacks: Sequence[TrainerCallback | type[TrainerCallback]],
        optimizers: tuple[Optimizer | None, Schedule | None],
    ) -> None:
        self.args = args
        self.accelerator = Accelerator(
            cpu=args.use_cpu,
            mixed_precision="no",  # args.autocast does it
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],  # several forwards per backward
        )
        if self.accelerator.distributed_type.value in _NOT_SUPPORTED:
            raise ValueError(f"training with {self.accelerator.distributed_type.value} is not supported yet")
        self.model = self.model_wrapped = model.to(self.accelerator.device)
        self.optimizer, self.lr_scheduler = optimizers
        self.state = TrainerState(
            is_local_process_zero=self.is_local_process_zero(), is_world_process_zero=self.is_world_process_zero()
        )
        self.control = TrainerControl()
        self.is_in_train = False
        report = PrinterCallback if args.disable_tqdm else ProgressCallback
        context = {"model": model, "processing_class": getattr(model, "tokenizer", None)}
        self.callback_handler = CallbackHandler([DefaultFlowCallback, *callbacks, report], context)

    def fire(self, event: str, extra: Mapping[str, object] | None = None) -> None:
        """Tell the callbacks of an event, and what it adds by name."""
        context = {"optimizer": self.optimizer, "lr_scheduler": self.lr_scheduler}
        self.callback_handler.context.update(context)
        self.control = self.callback_handler.fire(event, self.args, self.state, self.control, extra or {})

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write a row to the history and tell the callbacks.

        Args:
            logs: Numbers by name; not changed.
            start_time: :func:`time.time` at the start; adds the run time and the tokens per second so far.
        """
        row = {**logs, "epoch": self.state.epoch}
        if start_time is not None:
            seconds = time.time() - start_time
            row["train_runtime"] = seconds
            row["train_tokens_per_second"] = self.state.num_input_tokens_seen / seconds
        self.state.log_history.append({**row, "step": self.state.global_step})
        self.fire("on_log", {"logs": row})

    def add_callback(self, callback: TrainerCallback | type[TrainerCallback]) -> None:
        """Append a callback, an instance or a class that is built without arguments."""
        self.callback_handler.add(callback)

    def pop_callback(self, callback: TrainerCallback | type[TrainerCallback]) -> TrainerCallback | None:
        """Take out a callback, or the first of a class or its subclasses, and return it; None if there is none."""
        return self.callback_handler.pop(callback)

    def remove_callback(self, callback: TrainerCallback | type[TrainerCallback]) -> None:
        """Take out a callback, or the first of a class or its subclasses, if there is one."""
        self.callback_handler.pop(callback)

    def create_optimizer(self) -> Optimizer:
        """Build the optimizer, unless there is one."""
        if self.optimizer is None:
            learning_rates = self.args.mapping("learning_rate_mapping")
            groups = parameter_groups(self.loss, weight_decay=self.args.weight_decay, learning_rates=learning_rates)
            self.optimizer = build_optimizer(groups, self.args)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> Schedule:
        """Build the schedule, unless there is one, for an optimizer or the trainer's own.

        Raises:
            ValueError: If there is no optimizer, or the warm-up is longer than the run.
        """
        if self.lr_scheduler is None:
            chosen = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = build_scheduler(_present(chosen), self.args, num_training_steps)
        return self.lr_scheduler

    def create_optimizer_and_scheduler(self, num_training_steps: int) -> None:
        """Build optimizer and schedule, unless they are there."""
        self.create_optimizer()
        self.create_scheduler(num_training_steps)

    def get_learning_rates(self) -> list[float]:
        """Return the learning rate of each parameter group.

        Raises:
            ValueError: If there is no optimizer yet.
        """
        return learning_rates_of(_present(self.optimizer))

    def get_num_trainable_parameters(self) -> int:
        """Count the trained numbers of the model."""
        return sum(each.numel() for each in self.model.parameters() if each.requires_grad)

    def get_optimizer_group(self, param: nn.Parameter | str | None = None) -> list[list[nn.Parameter]] | ParameterGroup:
        """Return the parameters of each group, or the group that holds a parameter.

        Args:
            param: A parameter, compared by identity, or its name in ``loss``; None for all groups.

        Raises:
            ValueError: If there is no optimizer yet, or no such parameter in it.
        """
        optimizer = _present(self.optimizer)
        if param is None:
            return [group["params"] for group in optimizer.param_groups]
        if isinstance(param, str):
            parameters = dict(self.loss.named_parameters())
            if param not in parameters:
                raise ValueError(f"there is no parameter {param!r}; there are {list(parameters)[:10]} and others")
            param = parameters[param]
        return find_group(optimizer, param)

    def is_local_process_zero(self) -> bool:
        """Return whether this is the first process of its machine."""
        return bool(self.accelerator.is_local_main_process)

    def is_world_process_zero(self) -> bool:
        """Return whether this is the first process of all."""
        return bool(self.accelerator.is_main_process)


def _present(optimizer: Optimizer | None) -> Optimizer:
    if optimizer is None:
        raise ValueError("there is no optimizer yet; call create_optimizer() or train()")
    return optimizer
