"""What a micro-batch adds to the gradient of its update, by the trainer's step; knows neither data nor optimizers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from sparse_encoder.training.data.collator import Batch
from sparse_encoder.training.optimization.guard import GuardedUpdate
from sparse_encoder.training.randomness import MODEL_STREAM, seed_everything
from sparse_encoder.training.replicas import Replicas

if TYPE_CHECKING:
    from sparse_encoder.training.base import TrainerBase


class MicroBatches:
    """Train on the micro-batches of one update after the other.

    Args:
        trainer: Whose model, loss and ``training_step`` are used.
        guard: Scales the losses of float16.
    """

    def __init__(self, trainer: TrainerBase, guard: GuardedUpdate) -> None:
        self.trainer = trainer
        self.guard = guard
        self.replicas = Replicas(trainer.accelerator, trainer.objective, self.losses)

    def losses(self, batch: Batch, index: int) -> dict[str, Tensor]:
        """Return the loss of a micro-batch and its terms; the same every time, whatever was computed in between."""
        self._seed(index)
        return self.trainer.loss_and_terms(self.trainer.model_wrapped, batch)

    def train_on(self, batch: Batch, index: int, share: float, *, is_last: bool) -> dict[str, Tensor]:
        """Let the trainer's step, which may be one of the user's, add the gradient of a micro-batch.

        Args:
            batch: A batch as the collator made it.
            index: Its place in the update.
            share: What its loss is multiplied by.
            is_last: Whether it is the last of the update.

        Returns:
            The loss and its terms, as they were before the multiplication.

        Raises:
            ValueError: If that step works on another model, or does not leave the backward to ours under fp16.
        """
        trainer = self.trainer
        done: list[tuple[dict[str, Tensor], Tensor]] = []  # losses, and the part in the loss of the update

        def micro_step(model: nn.Module, inputs: Batch) -> Tensor:
            if model is not trainer.model_wrapped:
                raise ValueError("training_step must be given the model that the run gave to it")
            losses = self.replicas.losses_of(inputs, index)
            trainer.accelerator.backward(self.guard.scale(losses["loss"] * share))
            done.append((losses, losses["loss"].detach() * share))
            return done[-1][1]

        self._seed(index)
        trainer.micro_step = micro_step
        try:
            with self.replicas.averaging(last=is_last):
                part = trainer.training_step(trainer.model_wrapped, batch, trainer.num_items)
        finally:
            trainer.micro_step = None
        if not done and trainer.args.fp16:
            raise ValueError("with fp16=True a training_step must call super().training_step, which scales the loss")
        losses, own = done[-1] if done else ({}, None)
        return losses if part is own else {**losses, "loss": part.detach() / share}

    def finish(self) -> None:
        """Average what has not been averaged in the backwards of an update."""
        self.replicas.finish()

    def _seed(self, index: int) -> None:
        """Make what the model draws a function of where the run stands."""
        trainer = self.trainer
        rank = trainer.accelerator.process_index
        seed_everything(trainer.args.seed, MODEL_STREAM, trainer.state.global_step, rank, index)
