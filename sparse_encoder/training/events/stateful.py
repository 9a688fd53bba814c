"""What callbacks carry from one run to the next: collected for a checkpoint, and given back from it.

It knows callbacks only as :class:`~sparse_encoder.training.events.protocol.ExportableState`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sparse_encoder.training.events.protocol import CallbackHandler, ExportableState
from sparse_encoder.training.state import TrainerControl

logger = logging.getLogger(__name__)

CONTROL = TrainerControl.__name__

States = dict[str, Any]  # by class: a state, or a list of them; a state is a dict that JSON can hold


def collect_states(handler: CallbackHandler, control: TrainerControl) -> States:
    """Return the states of all callbacks that have one, by the name of their class, and the flags.

    Several callbacks of one class give a list, in their order. The result is new each time, so it does not grow from
    one checkpoint to the next.
    """
    states: States = {}
    for callback in handler.callbacks:
        if isinstance(callback, ExportableState):
            states.setdefault(type(callback).__name__, []).append(callback.state())
    control_state = {"args": asdict(control), "attributes": {}}
    return {name: each[0] if len(each) == 1 else each for name, each in states.items()} | {CONTROL: control_state}


def restore_states(handler: CallbackHandler, control: TrainerControl, states: Mapping[str, Any]) -> TrainerControl:
    """Put callbacks as they were saved into the places of those that the handler has, matched by class and order.

    A callback without a saved state stays as it is.

    Args:
        handler: Its callbacks are replaced.
        control: Returned if there are no saved flags.
        states: From :func:`collect_states`.

    Returns:
        The flags as they were saved, but for the one that ended that run.
    """
    left = {name: list(each) if isinstance(each, list) else [each] for name, each in states.items()}
    saved = left.pop(CONTROL, [])
    for index, callback in enumerate(handler.callbacks):
        if isinstance(callback, ExportableState) and left.get(type(callback).__name__):
            handler.callbacks[index] = type(callback).from_state(left[type(callback).__name__].pop(0))
    if unused := sorted(name for name, rest in left.items() if rest):
        logger.warning("the checkpoint has states of callbacks that this trainer does not have: %s", ", ".join(unused))
    return TrainerControl(**{**saved[0]["args"], "should_training_stop": False}) if saved else control
