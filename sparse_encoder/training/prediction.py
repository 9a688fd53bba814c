"""Predictions over a dataset: collected, padded, gathered from all processes, and turned into metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader

from sparse_encoder.training.arrays import as_array, concatenate
from sparse_encoder.training.data.collator import Batch, num_texts
from sparse_encoder.training.evaluating import EvalLoopOutput, RowCount
from sparse_encoder.training.outputs import IGNORED, EvalPrediction

if TYPE_CHECKING:
    from sparse_encoder.training.generic import Trainer

_MAIN_INPUT = "input_ids"


class Collected:
    """What came of the batches so far, in lists of arrays; on the device until it is moved.

    Args:
        accumulation_steps: Batches that stay on the device before they move to the CPU; None moves them at the end.
    """

    def __init__(self, accumulation_steps: int | None) -> None:
        self.accumulation_steps = accumulation_steps
        self._on_device: list[Any] = []  # nests of tensors
        self._arrays: list[Any] = []  # nests of arrays

    def add(self, value: Any) -> None:  # noqa: ANN401  (a nest of tensors)
        """Take in what a batch gave; None if it gave nothing."""
        if value is None:
            return
        self._on_device.append(value)
        if self.accumulation_steps is not None and len(self._on_device) >= self.accumulation_steps:
            self._move()

    def batches(self) -> list[Any]:
        """Return nests of arrays, one for each batch."""
        self._move()
        return self._arrays

    def _move(self) -> None:
        self._arrays.extend(to_arrays(each) for each in self._on_device)
        self._on_device = []


def predict_batches(
    trainer: Trainer,
    loader: DataLoader[Batch],
    ignore_keys: list[str] | None,
    prefix: str,
    *,
    only_loss: bool,
    for_outputs: bool,
) -> EvalLoopOutput:
    """Go through a dataset; see :meth:`Trainer.evaluation_loop`.

    Args:
        trainer: Whose model predicts.
        loader: The batches of this process.
        ignore_keys: Outputs of the model that are left out.
        prefix: In front of every metric.
        only_loss: Leave out all outputs, and the metrics that are computed from them.
        for_outputs: Keep the outputs even if metrics are computed batch by batch.
    """
    args = trainer.args
    parts = {name: Collected(args.eval_accumulation_steps) for name in ("losses", "logits", "labels", "inputs")}
    batch_metrics: dict[str, float] = {}
    count, num_batches = RowCount(loader, trainer.accelerator), 0
    for batch, is_last in with_end(loader):
        loss, logits, labels = trainer.prediction_step(trainer.model, batch, only_loss, ignore_keys)
        size = num_texts(batch) or 1
        turn = count.take(size)
        if logits is not None and trainer.preprocess_logits_for_metrics is not None:
            logits = trainer.preprocess_logits_for_metrics(logits, labels)
        found = {
            "losses": None if loss is None else loss.expand(size),
            "logits": logits,
            "labels": labels,
            "inputs": batch.get(_MAIN_INPUT) if "inputs" in args.include_for_metrics else None,
        }
        found = {name: _cut(_gathered(trainer, value, turn.sizes), turn.rows) for name, value in found.items()}
        if args.batch_eval_metrics and _can_be_judged(trainer, found):
            assert trainer.compute_metrics is not None
            batch_metrics = trainer.compute_metrics(_prediction(trainer, found), compute_result=is_last)
            found = found if for_outputs else {"losses": found["losses"]}
        for name, value in found.items():
            parts[name].add(value)
        num_batches += 1
        trainer.fire("on_prediction_step")
    return _output(trainer, parts, batch_metrics, count.seen, num_batches, prefix)


def with_end(batches: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
    """Yield batches, each with whether it is the last; a stream is read one batch ahead to know."""
    before: Batch | None = None
    for batch in batches:
        if before is not None:
            yield before, False
        before = batch
    if before is not None:
        yield before, True


def to_arrays(value: Any) -> Any:  # noqa: ANN401  (a nest of tensors)
    """Return a nest of tensors as arrays; 16-bit floats become float32."""
    if isinstance(value, Tensor):
        return as_array(value)
    if isinstance(value, tuple | list):
        return type(value)(to_arrays(each) for each in value)
    if isinstance(value, Mapping):
        return {name: to_arrays(each) for name, each in value.items()}
    return value


def joined_nests(batches: list[Any]) -> Any:  # noqa: ANN401  (nests of arrays)
    """Put nests of arrays one behind the other; axes of different lengths are filled up with -100."""
    first = batches[0]
    if isinstance(first, tuple | list):
        return type(first)(joined_nests([each[index] for each in batches]) for index in range(len(first)))
    if isinstance(first, Mapping):
        return {name: joined_nests([each[name] for each in batches]) for name in first}
    return concatenate([np.atleast_1d(each) for each in batches], fill=IGNORED)


def _output(
    trainer: Trainer,
    parts: Mapping[str, Collected],
    batch_metrics: dict[str, float],
    num_samples: int,
    num_batches: int,
    prefix: str,
) -> EvalLoopOutput:
    """Compute the metrics of all batches."""
    batches = {name: part.batches() for name, part in parts.items()}
    whole = trainer.args.eval_do_concat_batches
    joined = {
        name: (joined_nests(each) if whole or name == "losses" else each) if each else None
        for name, each in batches.items()
    }
    metrics = dict(batch_metrics or {})  # a metric function that only counts returns nothing
    if not trainer.args.batch_eval_metrics and _can_be_judged(trainer, joined):
        assert trainer.compute_metrics is not None
        metrics = dict(trainer.compute_metrics(_prediction(trainer, joined)))
    losses: Any = joined["losses"]  # an array, if there are labels
    if losses is not None:
        if trainer.args.logging_nan_inf_filter and np.isfinite(losses).any():
            losses = losses[np.isfinite(losses)]
        metrics["loss"] = float(losses.mean(dtype=np.float64))
    named = {
        name if name.startswith(f"{prefix}_") else f"{prefix}_{name}": _number(value) for name, value in metrics.items()
    }
    return EvalLoopOutput(joined["logits"], joined["labels"], named, num_samples, num_batches, {})


def _can_be_judged(trainer: Trainer, found: Mapping[str, Any]) -> bool:
    """Return whether there are metrics, and predictions and labels for them."""
    return trainer.compute_metrics is not None and found["logits"] is not None and found["labels"] is not None


def _prediction(trainer: Trainer, found: Mapping[str, Any]) -> EvalPrediction:
    wanted = trainer.args.include_for_metrics
    return EvalPrediction(
        found.get("logits"),
        found.get("labels"),
        inputs=found.get("inputs") if "inputs" in wanted else None,
        losses=found.get("losses") if "loss" in wanted else None,
    )


def _gathered(trainer: Trainer, value: Any, sizes: list[int]) -> Any:  # noqa: ANN401  (a nest of tensors)
    """Return what all processes have, one behind the other, so many rows of each."""
    accelerator = trainer.accelerator
    if value is None or accelerator.num_processes == 1:
        return value
    if trainer.args.eval_use_gather_object:
        return [each for process in gather_object([value]) for each in process]
    if isinstance(value, tuple | list):
        return type(value)(_gathered(trainer, each, sizes) for each in value)
    if value.ndim > 1:
        value = accelerator.pad_across_processes(value, dim=1, pad_index=IGNORED)
    if len(set(sizes)) == 1:
        return accelerator.gather(value)
    parts = accelerator.gather(accelerator.pad_across_processes(value, dim=0)).split(max(sizes))
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def _cut(value: Any, rows: int) -> Any:  # noqa: ANN401  (a nest of tensors)
    """Leave out rows that only filled up the last batch of a process."""
    if isinstance(value, tuple):
        return tuple(_cut(each, rows) for each in value)
    return value[:rows] if isinstance(value, Tensor) and value.ndim else value


def _number(value: Any) -> Any:  # noqa: ANN401  (a number of Python, numpy or torch)
    """Return a number of numpy or torch as Python's."""
    return value.item() if hasattr(value, "item") and getattr(value, "size", 1) in (1,) else value
