"""A search steered by ray tune, which runs trials side by side in processes of its own."""

from __future__ import annotations

import logging
import math
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_encoder.training.devices import build_accelerator
from sparse_encoder.training.tuning.protocol import BestRun
from sparse_encoder.training.tuning.trials import TrialRun

if TYPE_CHECKING:
    from sparse_encoder.training.tuning.search import Search

logger = logging.getLogger(__name__)

_REPORTING = ("ASHAScheduler", "AsyncHyperBandScheduler", "MedianStoppingRule")
_PAUSING = ("HyperBandForBOHB", "HyperBandScheduler", "PB2", "PopulationBasedTraining", "PopulationBasedTrainingReplay")


def default_hp_space_ray(trial: object = None) -> dict[str, Any]:  # ranges of an optional package
    """Return ranges of learning rate, epochs, seed and batch size.

    Args:
        trial: Not used; there is none yet.

    Raises:
        ImportError: If ray is not installed.
    """
    tune = _ray_tune()
    return {
        "learning_rate": tune.loguniform(1e-6, 1e-4),
        "num_train_epochs": tune.choice([1, 2, 3, 4, 5]),
        "seed": tune.randint(1, 41),
        "per_device_train_batch_size": tune.choice([4, 8, 16, 32, 64]),
    }


class RayBackend:
    """Let ``ray.tune.run`` choose; its options are that function's.

    A trial gets 1 CPU, and 1 GPU if the trainer uses one, unless ``resources_per_trial`` says otherwise. It reports
    its objective as ``objective``, beside the metrics; the last ones of the trials are compared, or as ``$RAY_SCOPE``
    says.

    Raises:
        ImportError: If ray is not installed.
    """

    name = "ray"

    def __init__(self) -> None:
        self._tune = _ray_tune()

    def default_space(self, trial: object) -> dict[str, Any]:  # as above
        """Return ranges of learning rate, epochs, seed and batch size."""
        return default_hp_space_ray(trial)

    def run(self, search: Search) -> BestRun:
        """Run the trials.

        Raises:
            ValueError: If there are several directions or processes, or a scheduler that pauses trials.
            RuntimeError: If no trial reported an objective.
        """
        trainer, options = search.trainer, dict(search.options)
        if len(search.directions) > 1:
            raise ValueError("ray looks for the best of one objective; backend='optuna' takes several directions")
        if search.num_processes > 1:
            raise ValueError("ray starts processes of its own; call hyperparameter_search() in one process")
        if search.n_trials is None:
            raise ValueError("ray needs n_trials")
        _check_scheduler(options.get("scheduler"), trainer.args.eval_strategy)
        resources = {"cpu": 1, "gpu": 1} if trainer.args.n_gpu > 0 else {"cpu": 1}
        options.setdefault("resources_per_trial", resources)
        if "progress_reporter" not in options:
            options["progress_reporter"] = self._tune.CLIReporter(metric_columns=["objective"])
        space = search.values_of(None)
        search.release()
        search.space, search.options = _no_space, {}  # they need not go to other processes
        trainable = self._trainable(search)
        analysis = self._tune.run(trainable, config=space, num_samples=search.n_trials, **options)
        scope = os.environ.get("RAY_SCOPE", "last")
        best = analysis.get_best_trial(metric="objective", mode=search.directions[0][:3], scope=scope)
        if best is None:
            raise RuntimeError("no trial reported an objective, so there is no best one; ray's log tells why")
        return BestRun(str(best.trial_id), best.last_result["objective"], dict(best.config), analysis)

    def _trainable(self, search: Search) -> Any:  # noqa: ANN401  (of an optional package)
        """Return what runs a trial, packed up for other processes, which find their own devices."""
        trainer = search.trainer
        output_dir = str(Path(str(trainer.args.output_dir)).absolute())
        accelerator = trainer.accelerator
        del trainer.accelerator
        try:
            return self._tune.with_parameters(_run_trial, search=search, output_dir=output_dir)
        finally:
            trainer.accelerator = accelerator


def _run_trial(config: dict[str, Any], search: Search, output_dir: str) -> None:  # settings of several types
    """Run a trial in a process of ray's.

    Args:
        config: What ray has chosen; ``wandb`` in it is for ray's own logger.
        search: As it was when ray began.
        output_dir: Folder of the trainer; the process may have been started elsewhere.
    """
    tune = _ray_tune()
    trainer = search.trainer
    trainer.args.output_dir = output_dir
    trainer.accelerator = build_accelerator(trainer.args)
    values = {name: value for name, value in config.items() if name != "wandb"}
    run = search.trial_run(config, tune.get_context().get_trial_id(), values, values)
    own_folder = search.hp_name is None  # by ray's id, so that checkpoints in it are of this trial
    run = TrialRun(trial=config, values=values, params=values, name=run.name, overwrite=own_folder)
    has_reported = False

    def report(objectives: list[float], metrics: dict[str, float], step: int) -> bool:
        nonlocal has_reported
        has_reported = True
        tune.report({**metrics, "objective": objectives[0]})
        return False  # ray ends the process if it gives the trial up

    try:
        objectives = search.run(run, report)
    except FloatingPointError as reason:
        logger.warning("the trial has failed: %s", reason)
        tune.report({"objective": math.nan})  # is never the best
        return
    if not has_reported:
        report(objectives, search.metrics, trainer.state.global_step)


def _check_scheduler(scheduler: object, eval_strategy: str) -> None:
    """Check that a scheduler gets what it needs."""
    name = type(scheduler).__name__
    if name in _PAUSING:
        raise ValueError(f"{name} is not supported: it takes up trials from checkpoints; choose from {_REPORTING}")
    if name in _REPORTING and eval_strategy == "no":
        raise ValueError(f"{name} goes by evaluations during training; give an eval_strategy other than 'no'")


def _no_space(trial: object) -> dict[str, Any]:  # nothing
    """Stand in for a space that has been asked."""
    return {}


def _ray_tune() -> Any:  # noqa: ANN401  (of an optional package)
    """Return ray's package of searches."""
    try:
        return import_module("ray.tune")
    except ImportError as reason:
        raise ImportError("backend 'ray' needs ray: pip install 'ray[tune]'") from reason
