"""The log of a run in TensorBoard; knows nothing of what is logged."""

from __future__ import annotations

import json
import logging
from numbers import Real
from typing import Any

from sparse_encoder.training.events.protocol import Arguments, Context, TrainerCallback
from sparse_encoder.training.events.reporting import by_section, model_config, require_tracker, tensorboard_folder
from sparse_encoder.training.state import TrainerControl, TrainerState

logger = logging.getLogger(__name__)


class TensorBoardCallback(TrainerCallback):
    """Write numbers and texts into the folder of :func:`tensorboard_folder`, or to a given ``tb_writer``."""

    def __init__(self, tb_writer: Any = None) -> None:  # noqa: ANN401  (of an optional package)
        self._module = require_tracker("tensorboard", "torch.utils.tensorboard")
        self.tb_writer = tb_writer
        self.logging_dir: str | None = None
        self._dropped_told = False

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Write the settings of the run and of the model."""
        if state.is_world_process_zero:
            self.logging_dir = None  # each run has its own
            self._open(args, state)
            self.tb_writer.add_text("args", args.to_json_string())
            if config := model_config(context["model"]):
                self.tb_writer.add_text("model_config", json.dumps(config, default=str))

    def on_log(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Write one row; those behind a run go to its folder too."""
        if not state.is_world_process_zero:
            return
        self._open(args, state)
        for name, value in by_section(context["logs"]).items():
            if isinstance(value, Real):
                self.tb_writer.add_scalar(name, float(value), state.global_step)
            elif isinstance(value, str):
                self.tb_writer.add_text(name, value, state.global_step)
            elif not self._dropped_told:
                logger.warning("TensorBoard takes numbers and texts; %s and the like are dropped: %r", name, value)
                self._dropped_told = True
        self.tb_writer.flush()

    def on_train_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Close the file."""
        self.release()

    def release(self) -> None:
        """Close the file."""
        if self.tb_writer is not None:
            self.tb_writer.close()
            self.tb_writer = None

    def _open(self, args: Arguments, state: TrainerState) -> None:
        if self.tb_writer is None:
            self.logging_dir = self.logging_dir or tensorboard_folder(args, state)
            self.tb_writer = self._module.SummaryWriter(log_dir=self.logging_dir)
