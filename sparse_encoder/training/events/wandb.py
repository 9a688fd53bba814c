"""The log of a run in Weights & Biases; knows nothing of what is logged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sparse_encoder.training.events.protocol import Arguments, Context, TrainerCallback
from sparse_encoder.training.events.reporting import by_section, model_config, require_tracker
from sparse_encoder.training.state import TrainerControl, TrainerState

STEP = "train/global_step"
SUMMARY = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos")
"""What there is one value of in a run; not part of its curves."""


class WandbCallback(TrainerCallback):
    """Log a run under ``$WANDB_PROJECT``, else ``args.project``, with the settings of the run and of the model.

    A run that was begun by ``wandb.init`` is used as it is. A trial of a search is a run, in a group with the other
    trials. The run stays open behind the training, for later evaluations; Weights & Biases ends it with the process.
    """

    def __init__(self) -> None:
        self._wandb = require_tracker("wandb")
        self.run: Any = None  # of an optional package

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Begin a run."""
        if state.is_world_process_zero:
            if state.is_hyper_param_search and self.run is not None:  # each trial is a run
                self.run.finish()
                self.run = None
            self._begin(args, state, context["model"])

    def on_log(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Log one row."""
        if state.is_world_process_zero:
            self._begin(args, state, context["model"])
            logs = context["logs"]
            self.run.summary.update({name: logs[name] for name in SUMMARY if name in logs})
            row = by_section({name: value for name, value in logs.items() if name not in SUMMARY})
            self.run.log({**row, STEP: state.global_step})

    def on_predict(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Log the metrics of a prediction."""
        self.on_log(args, state, control, logs=context["metrics"], model=context["model"])

    def _begin(self, args: Arguments, state: TrainerState, model: object) -> None:
        if self.run is None:
            project, trial = os.environ.get("WANDB_PROJECT") or args.project, state.trial_name
            of_search = args.run_name or str(Path(str(args.output_dir)).parent)  # trials have folders in one folder
            name, group = (trial, of_search) if trial else (args.run_name, None)
            self.run = self._wandb.run or self._wandb.init(project=project, name=name, group=group)
            self.run.config.update({**model_config(model), **args.to_dict()}, allow_val_change=True)
            self.run.define_metric(STEP)
            self.run.define_metric("*", step_metric=STEP, step_sync=True)
