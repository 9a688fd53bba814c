"""The step of a trainer that others override: what a micro-batch adds to the gradient of its update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from sparse_encoder.training.arguments import TrainingArguments
from sparse_encoder.training.data.collator import Batch

MicroStep = Callable[[nn.Module, Batch], Tensor]
NumItems = Tensor | int | None


class TrainerSteps(ABC):
    """The method of a trainer that a run calls for each micro-batch."""

    args: TrainingArguments
    accelerator: Accelerator
    model: Any  # subclasses say of which class

    micro_step: MicroStep | None = None
    """Does the step within the run that goes on."""
    num_items: NumItems = None
    """Labels of the update that is computed, for losses that are divided by them."""

    @abstractmethod
    def loss_and_terms(self, model: nn.Module, inputs: Batch) -> dict[str, Tensor]:
        """Return the loss of a batch as ``loss``, and its terms by name."""

    def compute_loss_context_manager(self) -> AbstractContextManager[object]:
        """Return the context of a forward: 16 bits if the settings say so."""
        return self.args.autocast(self.accelerator.device)

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: NumItems = None) -> Tensor:
        """Compute the loss of a micro-batch and add its gradient; override it to do more, or something else.

        One that does not call this must compute the loss within ``self.compute_loss_context_manager()``, divide it by
        the micro-batches of the update, and do the backward by ``self.accelerator.backward(loss)``; that does not go
        with ``fp16``.

        Args:
            model: The model that is trained, perhaps wrapped.
            inputs: A batch as the collator made it.
            num_items_in_batch: Labels of the whole update, for losses that are divided by them; None leaves what the
                run has counted.

        Returns:
            The part of the batch in the loss of its update, detached.
        """
        if num_items_in_batch is not None:
            self.num_items = num_items_in_batch
        if self.micro_step is not None:
            return self.micro_step(model, inputs)
        model.train()
        loss = self.loss_and_terms(model, inputs)["loss"]
        self.accelerator.backward(loss)
        return loss.detach()
