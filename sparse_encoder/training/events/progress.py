"""Where people see how far a run is: a progress bar, or rows on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from contextlib import suppress
from typing import Any

from tqdm.auto import tqdm

from sparse_encoder.training.events.protocol import Arguments, Context, TrainerCallback
from sparse_encoder.training.state import TrainerControl, TrainerState

_NOT_SHOWN = "total_flos"


def readable(logs: Mapping[str, object], max_str_len: int = 100) -> str:
    """Return a log row on one line, numbers with four digits, and only the length of texts that are longer."""
    pairs = (f"{name}: {_shown(value, max_str_len)}" for name, value in logs.items() if name != _NOT_SHOWN)
    return ", ".join(pairs)


def _shown(value: object, max_str_len: int) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str) and len(value) > max_str_len:
        return f"(a text of {len(value)} characters)"
    return str(value)


class ProgressCallback(TrainerCallback):
    """Draw a bar for the run and one for each evaluation or prediction, and write log rows above them.

    Only the first process of all does so.

    Args:
        max_str_len: Of texts in log rows, in characters; of longer ones only the length is shown.

    Raises:
        ValueError: If ``max_str_len`` is negative.
    """

    def __init__(self, max_str_len: int = 100) -> None:
        if max_str_len < 0:
            raise ValueError(f"max_str_len must be >= 0, got {max_str_len}")
        self.max_str_len = max_str_len
        self.training_bar: tqdm[Any] | None = None
        self.prediction_bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Open the bar of the run."""
        self.release()
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
        if not state.is_world_process_zero:
            return
        if self.prediction_bar is None:
            total = None
            with suppress(TypeError):  # streams have no length
                total = None if eval_dataloader is None else len(eval_dataloader)
            self.prediction_bar = tqdm(total=total, leave=self.training_bar is None, dynamic_ncols=True, unit="batch")
        self.prediction_bar.update()

    def on_evaluate(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Close the bar of an evaluation."""
        self._close_prediction()

    def on_predict(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Close the bar of a prediction."""
        self._close_prediction()

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
            self.training_bar.write(readable(logs, self.max_str_len))

    def on_train_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Close the bars."""
        self.release()

    def release(self) -> None:
        """Close the bars."""
        self._close_prediction()
        if self.training_bar is not None:
            self.training_bar.close()
            self.training_bar = None

    def _close_prediction(self) -> None:
        if self.prediction_bar is not None:
            self.prediction_bar.close()
            self.prediction_bar = None


class PrinterCallback(TrainerCallback):
    """Write log rows to standard output, in the first process of each machine."""

    def on_log(
        self,
        args: Arguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, object] | None = None,
        **context: Context,
    ) -> None:
        """Write one row."""
        if state.is_local_process_zero and logs:
            tqdm.write(readable(logs))
