"""SIGTERM and SIGINT as a wish: finish the update, save, exit. Knows neither loops nor checkpoints."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_EXIT_BASE = 128  # as a shell has it: 143 for SIGTERM, 130 for SIGINT


class StopRequest:
    """Whether the process was told to end."""

    def __init__(self) -> None:
        self.requested: int | None = None  # the signal's number

    def agree(self, accelerator: Accelerator) -> bool:
        """Return whether any process of the run was told to end; all get the same answer, at the same update.

        With several processes this waits for the device, once per call.

        Args:
            accelerator: Knows the other processes; all must call this.
        """
        if accelerator.num_processes > 1:
            number = torch.tensor([self.requested or 0], device=accelerator.device)
            highest = int(accelerator.gather(number).max())
            self.requested = self.requested or highest or None
        return self.requested is not None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Note the first SIGTERM or SIGINT, and leave by ``SystemExit`` at the end; a second one leaves at once.

    The exit code is 128 and the signal's number. Handlers of before are put back at the end.

    Yields:
        Where the signal is noted.

    Raises:
        ValueError: If this is not the main thread, which alone gets signals.
        SystemExit: At the end, if there was a signal.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ValueError("save_on_signal=True needs train() to run in the main thread, which alone gets signals")
    stop, owner = StopRequest(), os.getpid()

    def note(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker, which ends when it is told to, and not by Ctrl-C
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if stop.requested is not None:
            raise SystemExit(_EXIT_BASE + number)
        stop.requested = number

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if stop.requested is not None:
        logger.warning("stopped by %s", signal.Signals(stop.requested).name)
        raise SystemExit(_EXIT_BASE + stop.requested)
