"""Evaluations: the loss over datasets, what an evaluator says, and how both are logged; changes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sized
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from accelerate.utils.memory import should_reduce_batch_size
from torch import nn
from torch.utils.data import DataLoader

from sparse_encoder.training.data.collator import Batch, num_texts
from sparse_encoder.training.data.loaders import end_workers
from sparse_encoder.training.devices import half_weights, place_model
from sparse_encoder.training.events.splade_weights import SpladeRegularizerWeightSchedulerCallback
from sparse_encoder.training.meters import LossMeter, means_of, merge_sums
from sparse_encoder.training.sharding import is_sharded
from sparse_encoder.training.shared_evaluation import evaluate_together

if TYPE_CHECKING:
    from sparse_encoder.training.base import TrainerBase


EVALUATION, PREDICTION = "Evaluation", "Prediction"
"""What a loop over a dataset is for, as it is told."""


class EvalLoopOutput(NamedTuple):
    """What came of going through a dataset."""

    predictions: Any
    """Arrays of outputs, nested as the model's are; None if there are none."""
    label_ids: Any
    """Arrays of labels in the same way."""
    metrics: dict[str, float]
    num_samples: int
    num_batches: int
    terms: dict[str, float]
    """Means of the loss's terms by name; for the log only."""


class PredictionOutput(NamedTuple):
    """The result of ``predict()``."""

    predictions: Any
    """Arrays of outputs, nested as the model's are; None if the task has none."""
    label_ids: Any
    """Arrays of labels in the same way."""
    metrics: dict[str, float]


def evaluate_datasets(
    trainer: TrainerBase, eval_dataset: object, ignore_keys: list[str] | None, prefix: str
) -> dict[str, float]:
    """Evaluate all datasets and run the evaluator; see :meth:`TrainerBase.evaluate`."""
    sets = trainer.eval_sets(eval_dataset)
    results: dict[str, float] = {}
    for position, (name, dataset) in enumerate(sets.items()):
        started = time.perf_counter()
        own_prefix = prefix if name is None else f"{prefix}_{name}"
        output = _go_through(trainer, dataset, ignore_keys, own_prefix)
        metrics = dict(output.metrics)
        if position == 0:
            metrics |= trainer.evaluator_metrics(prefix)
        metrics |= _speed(own_prefix, output, time.perf_counter() - started)
        trainer.log({**metrics, **{f"{own_prefix}_{term}": value for term, value in output.terms.items()}})
        metrics["epoch"] = trainer.state.epoch
        trainer.fire("on_evaluate", {"metrics": metrics})
        results |= metrics
    return results


def predict_dataset(
    trainer: TrainerBase, test_dataset: object, ignore_keys: list[str] | None, prefix: str
) -> PredictionOutput:
    """Go through a dataset without logging; see :meth:`TrainerBase.predict`."""
    started = time.perf_counter()
    loader = trainer.get_test_dataloader(test_dataset)
    trainer.callback_handler.context["eval_dataloader"] = loader
    output = _loop(trainer, loader, PREDICTION, ignore_keys, prefix)
    metrics = {**output.metrics, **_speed(prefix, output, time.perf_counter() - started)}
    trainer.fire("on_predict", {"metrics": metrics})
    return PredictionOutput(output.predictions, output.label_ids, metrics)


class Turn(NamedTuple):
    """The batches that all processes have at one time."""

    sizes: list[int]
    """Rows of each process's batch."""
    rows: int
    """Rows of all that count: in the last turn a process without a batch of its own goes through one again."""
    own: int
    """Rows of this process that count."""


class RowCount:
    """Counts the rows of all processes, once each; a stream has no known end, so there all of them count.

    Args:
        loader: The batches of this process.
        accelerator: Knows the other processes.
    """

    def __init__(self, loader: DataLoader[Batch], accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.seen = 0
        dataset = getattr(loader, "dataset", None)  # a trainer's own kind of loader need not have one
        self._in_all = len(dataset) if isinstance(dataset, Sized) else None

    def take(self, size: int) -> Turn:
        """Count the rows of a turn; all processes must call this.

        Args:
            size: Rows of this process's batch.
        """
        accelerator = self.accelerator
        if accelerator.num_processes == 1:  # whatever a sampler gives counts
            self.seen += size
            return Turn([size], size, size)
        sizes = accelerator.gather(torch.tensor([size], device=accelerator.device)).tolist()
        rows = sum(sizes) if self._in_all is None else min(sum(sizes), self._in_all - self.seen)
        self.seen += rows
        before = sum(sizes[: accelerator.process_index])
        return Turn(sizes, rows, min(size, max(0, rows - before)))


def mean_losses(trainer: TrainerBase, loader: DataLoader[Batch], prefix: str) -> EvalLoopOutput:
    """Compute the loss of every batch with the full weights of a SpladeLoss, and weight it by the batch's size."""
    meter = LossMeter(filter_not_finite=trainer.args.logging_nan_inf_filter)
    count, num_batches = RowCount(loader, trainer.accelerator), 0
    with full_weights(trainer), torch.no_grad():
        for batch in loader:
            losses, turn = trainer.loss_and_terms(trainer.model, batch), count.take(num_texts(batch))
            if turn.own:
                meter.add(losses, weight=turn.own)
            num_batches += 1
            trainer.fire("on_prediction_step")
    terms = means_of(merge_sums(gather_object([meter.sums()])))
    metrics = {f"{prefix}_loss": terms.pop("loss")} if terms else {}
    return EvalLoopOutput(None, None, metrics, count.seen, num_batches, terms)


def call_evaluator(trainer: TrainerBase, evaluator: Any, prefix: str) -> dict[str, float]:  # noqa: ANN401  (a callable)
    """Run an evaluator, in the first of several processes; its metrics get the prefix unless they have it.

    The other processes encode for it, and have the same metrics, or the same error. A model whose parameters are
    shared out computes in all processes at once, so each runs the evaluator, and the metrics of the first count.
    """
    folder = None
    if trainer.is_world_process_zero():
        folder = str(Path(str(trainer.args.output_dir)) / "eval")
        Path(folder).mkdir(parents=True, exist_ok=True)
    epoch, steps = trainer.state.epoch, trainer.state.global_step

    def evaluate() -> Any:  # noqa: ANN401  (metrics by name, or one number)
        return evaluator(trainer.model, output_path=folder, epoch=epoch, steps=steps)

    with evaluating(trainer):
        if is_sharded(trainer.model):
            result = broadcast_object_list([evaluate()])[0]
        else:
            result = evaluate_together(evaluate, trainer.model)
    metrics = result if isinstance(result, Mapping) else {"evaluator": result}
    return {name if name.startswith(f"{prefix}_") else f"{prefix}_{name}": value for name, value in metrics.items()}


@contextmanager
def evaluating(trainer: TrainerBase) -> Iterator[None]:
    """Switch dropout off for a while, and use 16-bit weights outside of training if the settings say so."""
    model: nn.Module = trainer.model
    place_model(model, trainer.args, trainer.accelerator)
    modes = {module: module.training for whole in (trainer.objective, model) for module in whole.modules()}
    for module in modes:
        module.training = False
    try:
        with ExitStack() as held:
            if not trainer.is_in_train:
                held.enter_context(half_weights(model, trainer.args))
            yield
    finally:
        for module, was_training in modes.items():
            module.training = was_training  # parts that were frozen in evaluation mode stay so


@contextmanager
def full_weights(trainer: TrainerBase) -> Iterator[None]:
    """Give a SpladeLoss its full weights for a while, so that losses of different steps can be compared."""
    with ExitStack() as stack:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, SpladeRegularizerWeightSchedulerCallback):
                stack.enter_context(callback.full_weights())
        yield


def _go_through(trainer: TrainerBase, dataset: object, ignore_keys: list[str] | None, prefix: str) -> EvalLoopOutput:
    """Go through a dataset, if there is one."""
    if dataset is None:
        return EvalLoopOutput(None, None, {}, 0, 0, {})
    loader = trainer.get_eval_dataloader(dataset)
    trainer.callback_handler.context["eval_dataloader"] = loader
    return _loop(trainer, loader, EVALUATION, ignore_keys, prefix)


def _loop(
    trainer: TrainerBase, loader: DataLoader[Batch], description: str, ignore_keys: list[str] | None, prefix: str
) -> EvalLoopOutput:
    """Run the trainer's loop, and end the loader's workers; a lack of memory is no reason for smaller batches."""
    try:
        with evaluating(trainer):
            return trainer.evaluation_loop(loader, description, None, ignore_keys, prefix)
    except RuntimeError as error:
        if trainer.args.auto_find_batch_size and should_reduce_batch_size(error):
            size = trainer.args.per_device_eval_batch_size
            raise RuntimeError(
                f"an evaluation does not fit into memory; lower per_device_eval_batch_size, which is {size}"
            ) from error
        raise
    finally:
        end_workers(loader)


def _speed(prefix: str, output: EvalLoopOutput, seconds: float) -> dict[str, float]:
    """Return run time, samples and batches per second."""
    return {
        f"{prefix}_runtime": round(seconds, 4),
        f"{prefix}_samples_per_second": round(output.num_samples / seconds, 3),
        f"{prefix}_steps_per_second": round(output.num_batches / seconds, 3),
    }
