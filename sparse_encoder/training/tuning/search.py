"""A search for settings: one trainer runs trial after trial, each from a new model; knows no backend.

Settings, losses and folders of the trials are kept apart; what a trial has left behind is gone before the next.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from accelerate.utils import broadcast_object_list
from torch import nn

from sparse_encoder.training.launching import new_model
from sparse_encoder.training.sharding import is_sharded
from sparse_encoder.training.state import TrainerControl, TrainerState
from sparse_encoder.training.tuning.backends import backend_of
from sparse_encoder.training.tuning.objective import default_compute_objective, objectives_of
from sparse_encoder.training.tuning.protocol import (
    DIRECTIONS,
    BestRun,
    Objective,
    Report,
    SearchBackend,
    Space,
    Trial,
    TrialPruned,
    Values,
)
from sparse_encoder.training.tuning.trials import TrialRun, applied_trial, settings_of, warn_of_unknown

if TYPE_CHECKING:
    from sparse_encoder.training.base import TrainerBase

Told = TypeVar("Told")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSettings:
    """What a search is asked for; see :meth:`TrainerTuning.hyperparameter_search`."""

    space: Space | None
    compute_objective: Objective | None
    n_trials: int | None
    directions: tuple[str, ...]
    name: Callable[[Trial], str] | None
    options: Mapping[str, Any]  # of the backend
    """Keywords for the backend."""

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.directions or not set(self.directions) <= set(DIRECTIONS):
            raise ValueError(f"direction must be one of {DIRECTIONS}, or a list of them, got {list(self.directions)}")
        if self.n_trials is None:
            if self.options.get("timeout") is None:
                raise ValueError("n_trials=None needs a timeout, in seconds, or the search never ends")
        elif not isinstance(self.n_trials, int) or isinstance(self.n_trials, bool) or self.n_trials < 1:
            raise ValueError(f"n_trials must be a whole number > 0, got {self.n_trials!r}")
        if len(self.directions) > 1 and self.compute_objective is None:
            raise ValueError(f"the directions {list(self.directions)} need compute_objective, which returns a list")


class Search:
    """Run trials on a trainer, one at a time.

    Args:
        trainer: Makes a model for each trial by its ``model_init``.
        settings: What is searched for.
        space: Chooses the settings of a trial.
    """

    def __init__(self, trainer: TrainerBase, settings: SearchSettings, space: Space) -> None:
        self.trainer, self.space, self.hp_name = trainer, space, settings.name
        self.n_trials, self.directions, self.options = settings.n_trials, settings.directions, settings.options
        self.compute_objective = settings.compute_objective or default_compute_objective
        self.objectives: list[float] | None = None
        """Of the last evaluation of the present trial."""
        self.metrics: dict[str, float] = {}
        """All of that evaluation."""
        self._report: Report | None = None
        self._names: set[str] = set()
        self._told_unknown: set[str] = set()
        self._losses = _OwnTensors(trainer.objective, trainer.model)

    @property
    def num_processes(self) -> int:
        """Processes that run each trial together; the first of them talks with the backend."""
        return int(self.trainer.accelerator.num_processes)

    def values_of(self, trial: Trial) -> dict[str, Any]:  # settings of several types
        """Choose the settings of a trial.

        Raises:
            TypeError: If ``hp_space`` returns something else.
        """
        values = self.space(trial)
        if not isinstance(values, Mapping):
            raise TypeError(f"hp_space must return a dict of settings by name, got {values!r}")
        return dict(values)

    def trial_run(self, trial: Trial, number: int | str, values: Values, params: Values) -> TrialRun:
        """Give a trial a folder of its own.

        Args:
            trial: What ``model_init`` and ``hp_name`` get.
            number: Tells it from other trials.
            values: Settings by name; of those that a trainer does not have the log tells once.
            params: What they were made of.

        Raises:
            ValueError: If ``hp_name`` returns what cannot be the name of a folder.
        """
        args = self.trainer.args
        warn_of_unknown(args, {name: value for name, value in values.items() if name not in self._told_unknown})
        self._told_unknown |= set(values) - settings_of(args)
        name = f"run-{number}" if self.hp_name is None else str(self.hp_name(trial))
        if name in ("", ".", "..") or Path(name).name != name:
            raise ValueError(f"hp_name must return the name of a folder in output_dir, got {name!r}")
        if name in self._names:  # two trials may not share their checkpoints
            name = f"{name}-{number}"
        self._names.add(name)
        return TrialRun(trial=trial, values=values, params=params, name=name)

    def run(self, trial: TrialRun, report: Report | None = None) -> list[float]:
        """Train a new model with the settings of a trial and return its objectives.

        They are those of the last evaluation of the run, or of one behind it if there was none.

        Args:
            trial: Its values are checked as any settings are.
            report: Called after each evaluation of the run; in the first process, for it decides for all.

        Raises:
            TrialPruned: If that gives the trial up.
        """
        self.objectives, self.metrics, self._report = None, {}, report
        self._losses.restore()
        try:
            with applied_trial(self.trainer, trial):
                self.trainer.train(trial=trial.trial)
                if self.objectives is None:
                    self._note(self.trainer.evaluate())
        finally:
            self._report = None
            self.release()
        assert self.objectives is not None
        return self.objectives

    def evaluated(self, metrics: dict[str, float]) -> None:
        """Take note of an evaluation during a run; the loop calls this.

        Raises:
            TrialPruned: If the trial is given up.
        """
        objectives = self._note(metrics)
        trainer = self.trainer
        report = self._report
        given_up = False if report is None else report(objectives, self.metrics, trainer.state.global_step)
        if self.tell(given_up):
            trainer.fire("on_train_end")
            raise TrialPruned

    def tell(self, value: Told) -> Told:
        """Return what the first process says, in all of them."""
        if self.num_processes == 1:
            return value
        told: Told = broadcast_object_list([value])[0]
        return told

    def release(self) -> None:
        """Give back what a run has taken on the device; the model is in main memory until the next one is made."""
        trainer = self.trainer
        trainer.optimizer = trainer.lr_scheduler = None
        for name in (
            "optimizer",
            "lr_scheduler",
            "train_dataloader",
            "eval_dataloader",
            "save_checkpoint",
            "objective",
        ):
            trainer.callback_handler.context.pop(name, None)
        trainer.objective.zero_grad(set_to_none=True)
        if trainer.accelerator.device.type != "cpu" and not is_sharded(trainer.model):
            trainer.objective.to("cpu")
            gc.collect()
            if trainer.accelerator.device.type == "cuda":
                torch.cuda.empty_cache()

    def end(self) -> None:
        """Leave the trainer as it was built: with a new model that has not been trained."""
        trainer = self.trainer
        self._losses.restore()
        trainer.use_model(new_model(trainer, None))
        trainer.state = TrainerState(
            is_local_process_zero=trainer.is_local_process_zero(), is_world_process_zero=trainer.is_world_process_zero()
        )
        trainer.control = TrainerControl()

    def _note(self, metrics: dict[str, float]) -> list[float]:
        self.metrics = dict(metrics)
        self.objectives = objectives_of(self.compute_objective, self.metrics, self.directions)
        return self.objectives


def hyperparameter_search(
    trainer: TrainerBase, settings: SearchSettings, backend: str | SearchBackend | None
) -> BestRun | list[BestRun] | None:
    """Search for settings; see :meth:`TrainerTuning.hyperparameter_search`."""
    chosen = backend_of(backend)
    if trainer.model_init is None:
        raise RuntimeError(
            "hyperparameter_search() needs a trainer with model_init: each trial begins with a new model"
        )
    if trainer.search is not None or trainer.is_in_train:
        raise RuntimeError("hyperparameter_search() was called while the trainer runs")
    if settings.compute_objective is None and isinstance(trainer.eval_dataset, Mapping):
        raise ValueError(
            f"several datasets, {sorted(trainer.eval_dataset)}, need compute_objective: their metrics have names of "
            "their own, such as eval_<name>_loss"
        )
    trainer.eval_sets(None)  # raises if there is nothing to evaluate with
    trainer.search = search = Search(trainer, settings, settings.space or chosen.default_space)
    try:
        best = chosen.run(search)
    finally:
        trainer.search = None
    search.end()
    return best


class _OwnTensors:
    """Keep the numbers that losses have beside the model, and put them back.

    Args:
        objective: Holds losses and model.
        model: What is left out.
    """

    def __init__(self, objective: nn.Module, model: nn.Module) -> None:
        of_model = set(map(id, model.modules()))
        self._kept = [
            (weakref.ref(module), name, tensor.detach().clone())
            for module in objective.modules()
            if id(module) not in of_model
            for name, tensor in (*module._parameters.items(), *module._buffers.items())
            if tensor is not None
        ]

    def restore(self) -> None:
        """Put them back, where their modules are still there."""
        with torch.no_grad():
            for reference, name, value in self._kept:
                module = reference()
                if module is not None:
                    getattr(module, name).copy_(value)

    def __getstate__(self) -> dict[str, Any]:  # values of several types
        """Leave out the references, which cannot go to another process."""
        return {"_kept": []}
