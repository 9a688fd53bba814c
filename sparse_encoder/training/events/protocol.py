"""The protocol by which others follow and steer a run, and who calls them; knows nothing of what a run computes."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sparse_encoder.training.arguments import TrainingArguments
from sparse_encoder.training.state import TrainerControl, TrainerState

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

Arguments = TrainingArguments
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

    def on_predict(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> Reply:
        """A prediction is done; ``metrics`` has its results."""
        return None

    def on_save(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> Reply:
        """A checkpoint is on the disk."""
        return None

    def on_push_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> Reply:
        """An upload to the hub begins; the other processes, which do not upload, are not told."""
        return None

    def on_log(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> Reply:
        """``logs`` is written to the history; this is a copy, which callbacks behind see as it was left."""
        return None

    def release(self) -> None:
        """Undo what is for the time of a run only; called whenever one is over, by an error or a signal too.

        No event: it comes after ``on_train_end``, if that comes, and must do no harm then.
        """


EVENTS = tuple(name for name in vars(TrainerCallback) if name.startswith("on_"))
"""Every event, in about the order of a run."""


@runtime_checkable
class ExportableState(Protocol):
    """A callback whose state is saved with checkpoints: a second base beside :class:`TrainerCallback`.

    An object with these two methods is taken for one, whatever its bases.
    """

    @abstractmethod
    def state(self) -> dict[str, Any]:  # values that JSON can hold
        """Return ``args``, the arguments of the constructor by name, and ``attributes``, what is set afterwards."""

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:  # as above
        """Build one as it was when :meth:`state` was called."""
        instance = cls(**state["args"])
        for name, value in state["attributes"].items():
            setattr(instance, name, value)
        return instance


class CallbackHandler:
    """Call callbacks in their order.

    A callback is any object that has one of the events as a method, so those written for transformers work; of events
    that it does not have it is not told.

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
        """Append a callback; a second one of its class is let in with a warning.

        Raises:
            TypeError: If it has none of the events.
        """
        instance = callback() if isinstance(callback, type) else callback
        if not any(callable(getattr(instance, event, None)) for event in EVENTS):
            raise TypeError(f"a callback must have one of the methods {list(EVENTS)}, got {instance!r}")
        if any(type(present) is type(instance) for present in self.callbacks):
            logger.warning("a second callback of class %s is added", type(instance).__name__)
        self.callbacks.append(instance)

    def pop(self, callback: TrainerCallback | type[TrainerCallback]) -> TrainerCallback | None:
        """Take out an instance, or the first of a class or its subclasses; None if there is none."""
        for index, present in enumerate(self.callbacks):
            if isinstance(present, callback) if isinstance(callback, type) else present == callback:
                return self.callbacks.pop(index)
        return None

    add_callback, pop_callback = add, pop  # as the trainer's methods are called

    def remove_callback(self, callback: TrainerCallback | type[TrainerCallback]) -> None:
        """Take out an instance, or the first of a class or its subclasses, if there is one."""
        self.pop(callback)

    def release(self) -> None:
        """Let all callbacks undo what is for the time of a run only; all do, also if one raises."""
        with ExitStack() as stack:
            for callback in self.callbacks:
                if isinstance(callback, TrainerCallback):
                    stack.callback(callback.release)

    @property
    def callback_list(self) -> str:
        """The names of the callbacks' classes, one to a line."""
        return "\n".join(type(callback).__name__ for callback in self.callbacks)

    def fire(
        self,
        event: str,
        args: Arguments,
        state: TrainerState,
        control: TrainerControl,
        extra: Mapping[str, object],
    ) -> TrainerControl:
        """Tell the callbacks that know an event of it, and of what it adds; returns the control to go on with.

        Raises:
            TypeError: If a callback returns anything but a TrainerControl or None.
        """
        assert event in EVENTS
        for callback in list(self.callbacks):  # which may add or remove some
            told = getattr(callback, event, None)
            reply = None if told is None else told(args, state, control, **self.context, **extra)
            if reply is not None and not isinstance(reply, TrainerControl):
                raise TypeError(
                    f"{type(callback).__name__}.{event} must return a TrainerControl or None, got {reply!r}"
                )
            control = control if reply is None else reply
        return control
