"""The protocol by which others follow and steer a run, and who calls them; knows nothing of what a run computes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from sparse_encoder.training.arguments import SparseEncoderTrainingArguments
from sparse_encoder.training.state import TrainerControl, TrainerState

logger = logging.getLogger(__name__)

Arguments = SparseEncoderTrainingArguments
Reply = TrainerControl | None
Context = Any  # by keyword: the model, the optimizer, dataloaders, log rows and others


class TrainerCallback:
    """Do nothing at any event; subclasses define those they need.

    An event comes as ``on_...(args, state, control, **context)``. The context has ``model``, ``processing_class``,
    ``optimizer``, ``lr_scheduler``, ``train_dataloader``, ``eval_dataloader`` and what the event adds. A callback may
    change the flags of ``control``, or return another control, which takes its place.
    """

    def on_init_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> Reply:
        """The trainer is built."""
        return None

    def on_train_begin(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context
    ) -> Reply:
        """A run begins, or is taken up."""
        return None

    def on_train_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> Reply:
        """A run ends."""
        return None

    def on_epoch_begin(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context
    ) -> Reply:
        """A pass over the data begins, or is taken up."""
        return None

    def on_epoch_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> Reply:
        """A pass over the data ends, also when it was stopped."""
        return None

    def on_step_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> Reply:
        """The batches of the next update are read."""
        return None

    def on_substep_end(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context
    ) -> Reply:
        """A batch that is not the last of its update has its gradient."""
        return None

    def on_pre_optimizer_step(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context
    ) -> Reply:
        """The gradient of an update is complete and clipped."""
        return None

    def on_optimizer_step(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context
    ) -> Reply:
        """The optimizer has moved the weights; gradients are still there."""
        return None

    def on_step_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> Reply:
        """An update is done and counted."""
        return None

    def on_prediction_step(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context
    ) -> Reply:
        """A batch of an evaluation has its loss."""
        return None

    def on_evaluate(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> Reply:
        """An evaluation is done; ``metrics`` has its results."""
        return None

    def on_save(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> Reply:
        """A checkpoint is on the disk."""
        return None

    def on_log(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> Reply:
        """``logs`` is written to the history; this is a copy, which callbacks behind see as it was left."""
        return None


class CallbackHandler:
    """Call callbacks in their order.

    Args:
        callbacks: Instances, or classes that are built without arguments.
        context: What every event gets by keyword; shared, so that its owner can keep it up to date.
    """

    def __init__(
        self, callbacks: Sequence[TrainerCallback | type[TrainerCallback]], context: dict[str, Any]
    ) -> None:  # the context has objects of many types
        self.callbacks: list[TrainerCallback] = []
        self.context = context
        for callback in callbacks:
            self.add(callback)

    def add(self, callback: TrainerCallback | type[TrainerCallback]) -> None:
        """Append a callback; a second one of its class is let in with a warning."""
        instance = callback() if isinstance(callback, type) else callback
        if any(type(present) is type(instance) for present in self.callbacks):
            logger.warning("a second callback of class %s is added", type(instance).__name__)
        self.callbacks.append(instance)

    def pop(self, callback: TrainerCallback | type[TrainerCallback]) -> TrainerCallback | None:
        """Take out an instance, or the first of a class or its subclasses; None if there is none."""
        for index, present in enumerate(self.callbacks):
            if isinstance(present, callback) if isinstance(callback, type) else present == callback:
                return self.callbacks.pop(index)
        return None

    def fire(
        self,
        event: str,
        args: Arguments,
        state: TrainerState,
        control: TrainerControl,
        extra: Mapping[str, object],
    ) -> TrainerControl:
        """Tell every callback of an event, and what it adds; returns the control to go on with."""
        for callback in self.callbacks:
            reply = getattr(callback, event)(args, state, control, **self.context, **extra)
            control = control if reply is None else reply
        return control
