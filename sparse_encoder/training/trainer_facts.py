"""What a trainer tells of its optimizer, its model and the lengths of its runs; computes nothing that is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sized
from typing import Any

from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from sparse_encoder.training.arguments import TrainingArguments
from sparse_encoder.training.data.collator import Batch
from sparse_encoder.training.data.loaders import length_of
from sparse_encoder.training.deepspeed_config import RunSize, propagate_args_to_deepspeed
from sparse_encoder.training.optimization.groups import (
    ParameterGroup,
    decayed_names,
    find_group,
    learning_rates_of,
    named_parameter,
)
from sparse_encoder.training.optimization.optimizers import get_optimizer_cls_and_kwargs
from sparse_encoder.training.steps import TrainingValues, training_values

OptimizerRecipe = tuple[type[Optimizer], dict[str, Any]]


class TrainerFacts(ABC):
    """The methods of a trainer that only tell."""

    args: TrainingArguments
    accelerator: Accelerator
    model: Any  # subclasses say of which class
    optimizer: Optimizer | None

    @property
    @abstractmethod
    def objective(self) -> nn.Module:
        """The module whose parameters are trained: a loss that holds the model, or the model."""

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: TrainingArguments, model: nn.Module | None = None) -> OptimizerRecipe:
        """Return the class and the options of the optimizer that the settings name; the model has no influence."""
        return get_optimizer_cls_and_kwargs(args)

    def get_learning_rates(self) -> list[float]:
        """Return the learning rate of each parameter group.

        Raises:
            ValueError: If there is no optimizer yet.
        """
        return learning_rates_of(present(self.optimizer))

    def get_num_trainable_parameters(self) -> int:
        """Count the trained numbers of the model."""
        return sum(each.numel() for each in self.model.parameters() if each.requires_grad)

    def get_optimizer_group(self, param: nn.Parameter | str | None = None) -> list[list[nn.Parameter]] | ParameterGroup:
        """Return the parameters of each group, or the group that holds a parameter.

        Args:
            param: A parameter, compared by identity, or its name in what is trained; None for all groups.

        Raises:
            ValueError: If there is no optimizer yet, or no such parameter in it.
        """
        optimizer = present(self.optimizer)
        if param is None:
            return [group["params"] for group in optimizer.param_groups]
        return find_group(optimizer, named_parameter(self.objective, param) if isinstance(param, str) else param)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Return the names of a model's parameters that weight decay applies to: all but biases and those of norms."""
        decayed = decayed_names(model)
        return [name for name, _ in model.named_parameters() if name in decayed]

    def num_examples(self, dataloader: DataLoader[Batch]) -> int:
        """Count the rows that batches are made of, or what they would be if all batches were full.

        Raises:
            TypeError: If neither the rows nor the batches have a length.
        """
        rows = getattr(dataloader, "dataset", None)
        return len(rows) if isinstance(rows, Sized) else len(dataloader) * self.args.train_batch_size

    def get_total_train_batch_size(self, args: TrainingArguments) -> int:
        """Count the rows of an update, of all processes."""
        return int(args.train_batch_size * args.gradient_accumulation_steps * self.accelerator.num_processes)

    def set_initial_training_values(
        self, args: TrainingArguments, dataloader: DataLoader[Batch], total_train_batch_size: int | None = None
    ) -> TrainingValues:
        """Return the lengths of a run over these batches.

        Args:
            args: The settings.
            dataloader: The batches of an epoch.
            total_train_batch_size: Rows of an update; None counts those of all processes.
        """
        if total_train_batch_size is None:
            total_train_batch_size = self.get_total_train_batch_size(args)
        rows = getattr(dataloader, "dataset", None)
        num_rows = len(rows) if isinstance(rows, Sized) else None
        return training_values(args, length_of(dataloader), num_rows, total_train_batch_size)

    def propagate_args_to_deepspeed(self, auto_find_batch_size: bool = False) -> None:
        """Fill the "auto" fields of the DeepSpeed configuration that accelerate was launched with.

        Args:
            auto_find_batch_size: The batch size is still looked for, so a fixed one in the configuration may differ.

        Raises:
            ValueError: If there is no such configuration, or it contradicts the settings.
        """
        plugin = getattr(self.accelerator.state, "deepspeed_plugin", None)
        if plugin is None:
            raise ValueError(
                "there is no DeepSpeed configuration: this trainer shards by args.fsdp. For a script that runs "
                "DeepSpeed itself, sparse_encoder.training.deepspeed_config.propagate_args_to_deepspeed fills one"
            )
        size = RunSize(num_processes=self.accelerator.num_processes)
        plugin.deepspeed_config = propagate_args_to_deepspeed(
            plugin.deepspeed_config, self.args, size, auto_find_batch_size=auto_find_batch_size
        )


def present(optimizer: Optimizer | None) -> Optimizer:
    """Return an optimizer that must be there by now.

    Raises:
        ValueError: If it is not.
    """
    if optimizer is None:
        raise ValueError("there is no optimizer yet; call create_optimizer() or train()")
    return optimizer
