"""The loss of a model over a dataset, and what an evaluator says, as metrics; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import DataLoader

from sparse_encoder.training.data.collator import Batch, num_texts
from sparse_encoder.training.events.splade_weights import SpladeRegularizerWeightSchedulerCallback
from sparse_encoder.training.meters import LossMeter, means_of, merge_sums

if TYPE_CHECKING:
    from sparse_encoder.training.trainer import SparseEncoderTrainer


class EvaluationLoss(NamedTuple):
    """Means over the rows of a dataset."""

    means: dict[str, float]
    """Of the loss, ``loss``, and of its terms by name."""
    num_samples: int
    num_batches: int


def evaluation_loss(trainer: SparseEncoderTrainer, loader: DataLoader[Batch]) -> EvaluationLoss:
    """Compute the loss of every batch with the full weights of a SpladeLoss, and weight it by the batch's size."""
    meter = LossMeter(filter_not_finite=trainer.args.logging_nan_inf_filter)
    num_samples = num_batches = 0
    with _evaluating(trainer.model), _full_weights(trainer), torch.no_grad():
        for batch in loader:
            size = num_texts(batch)
            meter.add(trainer.loss_and_terms(trainer.model, batch), weight=size)
            num_samples += size
            num_batches += 1
            trainer.fire("on_prediction_step")
    means = means_of(merge_sums(gather_object([meter.sums()])))
    return EvaluationLoss(means, num_samples * trainer.accelerator.num_processes, num_batches)


def evaluator_metrics(trainer: SparseEncoderTrainer, prefix: str) -> dict[str, float]:
    """Run the trainer's evaluator; its metrics get the prefix unless they have it."""
    if trainer.evaluator is None:
        return {}
    folder = str(Path(str(trainer.args.output_dir)) / "eval") if trainer.is_world_process_zero() else None
    with _evaluating(trainer.model):
        epoch: Any = trainer.state.epoch  # a fraction, which evaluators only write down
        result = trainer.evaluator(trainer.model, output_path=folder, epoch=epoch, steps=trainer.state.global_step)
    metrics = result if isinstance(result, dict) else {"evaluator": result}
    return {name if name.startswith(f"{prefix}_") else f"{prefix}_{name}": value for name, value in metrics.items()}


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def _full_weights(trainer: SparseEncoderTrainer) -> Iterator[None]:
    """Give a SpladeLoss its full weights for a while, so that losses of different steps can be compared."""
    with ExitStack() as stack:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, SpladeRegularizerWeightSchedulerCallback):
                stack.enter_context(callback.full_weights())
        yield
