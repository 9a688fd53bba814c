"""Where people see how far a run is: a progress bar, or the log of the process."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sized
from typing import Any

from tqdm.auto import tqdm

from sparse_encoder.training.events.protocol import Arguments, Context, TrainerCallback
from sparse_encoder.training.state import TrainerControl, TrainerState

logger = logging.getLogger(__name__)


def readable(logs: Mapping[str, object]) -> str:
    """Return a log row on one line, numbers with four digits."""
    pairs = (f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}" for name, value in logs.items())
    return ", ".join(pairs)


class ProgressCallback(TrainerCallback):
    """Draw a bar for the run and one for each evaluation, and write log rows above them."""

    def __init__(self) -> None:
        self.training_bar: tqdm[Any] | None = None
        self.evaluation_bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Open the bar of the run."""
        if state.is_world_process_zero:
            self.training_bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=args.run_name, dynamic_ncols=True, unit="step"
            )

    def on_step_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Move the bar of the run."""
        if self.training_bar is not None:
            self.training_bar.update(state.global_step - self.training_bar.n)

    def on_prediction_step(
        self,
        args: Arguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Sized | None = None,
        **context: Context,
    ) -> None:
        """Open the bar of an evaluation, or move it."""
        if not state.is_world_process_zero or eval_dataloader is None:
            return
        if self.evaluation_bar is None:
            self.evaluation_bar = tqdm(
                total=len(eval_dataloader), leave=self.training_bar is None, dynamic_ncols=True, unit="batch"
            )
        self.evaluation_bar.update()

    def on_evaluate(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Close the bar of an evaluation."""
        if self.evaluation_bar is not None:
            self.evaluation_bar.close()
            self.evaluation_bar = None

    def on_log(
        self,
        args: Arguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, object] | None = None,
        **context: Context,
    ) -> None:
        """Write a log row above the bar."""
        if self.training_bar is not None and logs:
            self.training_bar.write(readable(logs))

    def on_train_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Close the bar of the run."""
        if self.training_bar is not None:
            self.training_bar.close()
            self.training_bar = None


class PrinterCallback(TrainerCallback):
    """Give log rows to the log of the process."""

    def on_log(
        self,
        args: Arguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, object] | None = None,
        **context: Context,
    ) -> None:
        """Log one row."""
        if state.is_local_process_zero and logs:
            logger.info("%s", readable(logs))
