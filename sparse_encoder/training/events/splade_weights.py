"""The schedule of SpladeLoss's regulariser weights: ranking first, sparsity later."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum

from torch import nn

from sparse_encoder.losses import SpladeLoss
from sparse_encoder.training.events.protocol import Arguments, Context, TrainerCallback
from sparse_encoder.training.state import TrainerControl, TrainerState

logger = logging.getLogger(__name__)


class SchedulerType(Enum):
    """How a weight rises."""

    LINEAR = "linear"
    QUADRATIC = "quadratic"


class SpladeRegularizerWeightSchedulerCallback(TrainerCallback):
    r"""Raise the weights of a SpladeLoss from 0 to those it was built with.

    .. math:: \lambda(s) = \lambda_{max} \cdot \min(1, s / W)^2, \quad
              W = \max(1, \lfloor \text{warmup\_ratio} \cdot \text{max\_steps} \rfloor)

    where s counts the updates before this one; ``linear`` leaves out the square. The weight follows from s alone, so a
    resumed run has the right one. The weights in use are added to every log row. One that finds its own way, because
    the loss has a target of active terms in its place, is left alone; such a loss, in evaluations, is that of ranking,
    and a run that chooses its best model by it is warned. Unlike in the peer, unknown types and ratios are refused,
    evaluations use the full weights, so that their losses can be compared, and after a run, also one that was
    interrupted, the loss has its full weights again.

    Source: Formal et al., 2021, https://arxiv.org/abs/2109.10086.

    Args:
        loss: The loss whose weights rise.
        scheduler_type: ``quadratic`` or ``linear``.
        warmup_ratio: Part of the run in which the weights rise, above 0 and at most 1.

    Raises:
        ValueError: If ``loss`` is no SpladeLoss, the type is unknown, or the ratio out of range.
    """

    def __init__(
        self,
        loss: SpladeLoss,
        scheduler_type: str | SchedulerType = SchedulerType.QUADRATIC,
        warmup_ratio: float = 1 / 3,
    ) -> None:
        if not isinstance(loss, SpladeLoss):
            raise ValueError(f"loss must be a SpladeLoss, got {type(loss).__name__}")
        kind = scheduler_type.lower() if isinstance(scheduler_type, str) else scheduler_type.value
        known = [member.value for member in SchedulerType]
        if kind not in known:
            raise ValueError(f"unknown scheduler_type {scheduler_type!r}; choose from {known}")
        if not 0 < warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio must be > 0 and <= 1, got {warmup_ratio}")
        self.loss = loss
        self.dataset_name: str | None = None
        """Stands behind the names of the weights in log rows, where several losses have a schedule."""
        self.was_added = False
        """Whether the trainer has made it; then it goes when its loss does."""
        self.scheduler_type = SchedulerType(kind)
        self.warmup_ratio = warmup_ratio
        self.max_document_regularizer_weight = loss.document_regularizer_weight
        self.max_query_regularizer_weight = loss.query_regularizer_weight

    def factor(self, step: int, max_steps: int) -> float:
        """Return the part of the full weights that an update has after ``step`` others."""
        ratio = min(1.0, step / max(1, int(max_steps * self.warmup_ratio)))
        return ratio if self.scheduler_type is SchedulerType.LINEAR else ratio**2

    @contextmanager
    def full_weights(self) -> Iterator[None]:
        """Give the loss its full weights for a while."""
        before = self.loss.document_regularizer_weight, self.loss.query_regularizer_weight
        self._set_weights(1.0)
        try:
            yield
        finally:
            self.loss.document_regularizer_weight, self.loss.query_regularizer_weight = before

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Set the weights of the first update, and warn of a best model that would be the best before it was sparse."""
        self._set_weights(self.factor(state.global_step, state.max_steps))
        if (args.metric_for_best_model or "").endswith("loss") and state.is_world_process_zero:
            self._warn_of_targets()

    def on_step_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Set the weights of the next update."""
        self._set_weights(self.factor(state.global_step, state.max_steps))

    def on_log(
        self,
        args: Arguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **context: Context,
    ) -> None:
        """Add the weights in use to a log row."""
        if logs is None:
            return
        suffix = "" if self.dataset_name is None else f"_{self.dataset_name}"
        for name, weight in self.loss.weights_in_use().items():
            logs[f"{name}{suffix}"] = weight

    def on_train_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Give the loss its full weights back."""
        self.release()

    def release(self) -> None:
        """Give the loss its full weights back."""
        self._set_weights(1.0)

    def _warn_of_targets(self) -> None:
        targets = {"target_document_dims": self.loss.document_target, "target_query_dims": self.loss.query_target}
        if given := [name for name, target in targets.items() if target is not None]:
            logger.warning(
                "metric_for_best_model is the evaluation loss, which leaves out what %s of SpladeLoss weighs: a model "
                "from before it was sparse may be the best one; choose a metric of an evaluator",
                " and ".join(given),
            )

    def _set_weights(self, factor: float) -> None:
        if self.max_document_regularizer_weight is not None:
            self.loss.document_regularizer_weight = self.max_document_regularizer_weight * factor
        if self.max_query_regularizer_weight is not None:
            self.loss.query_regularizer_weight = self.max_query_regularizer_weight * factor


def schedule_splade_weights(callbacks: list[TrainerCallback], losses: nn.Module | Mapping[str, nn.Module]) -> None:
    """Put the callbacks that schedule the weights of SpladeLosses behind the default flow; make those that are missing.

    Args:
        callbacks: Of a trainer, the default flow first; changed in place.
        losses: Its loss, or its losses by dataset. With several SpladeLosses, each callback gets the name of the
            dataset (the first one, of a loss that several share).
    """
    by_dataset = losses if isinstance(losses, Mapping) else {"": losses}
    found = {id(loss): loss for loss in by_dataset.values() if isinstance(loss, SpladeLoss)}
    scheduled = [each for each in callbacks if isinstance(each, SpladeRegularizerWeightSchedulerCallback)]
    gone = {id(each) for each in scheduled if each.was_added and id(each.loss) not in found}
    callbacks[:] = [each for each in callbacks if id(each) not in gone]  # their losses were those of another model
    for place, loss in enumerate(found.values(), start=1):
        callback = _take(callbacks, loss)
        if callback is None:
            if not gone and (loss.document_target is None or loss.query_regularizer_weight is not None):
                logger.warning(
                    "SpladeLoss without a SpladeRegularizerWeightSchedulerCallback: one is added, which raises the "
                    "weights of the regularizers from 0 over the first third of the run"
                )
            callback = SpladeRegularizerWeightSchedulerCallback(loss)
            callback.was_added = True
        name = next(name for name, each in by_dataset.items() if each is loss)
        callback.dataset_name = name if len(found) > 1 else None
        callbacks.insert(place, callback)


def _take(callbacks: list[TrainerCallback], loss: SpladeLoss) -> SpladeRegularizerWeightSchedulerCallback | None:
    """Take the callback of a loss out of a list."""
    for index, callback in enumerate(callbacks):
        if isinstance(callback, SpladeRegularizerWeightSchedulerCallback) and callback.loss is loss:
            del callbacks[index]
            return callback
    return None
