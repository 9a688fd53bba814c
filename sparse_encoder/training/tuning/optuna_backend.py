"""A search steered by optuna, in this process; with several processes the first asks optuna and tells the others."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparse_encoder.training.tuning.protocol import BestRun, TrialPruned
from sparse_encoder.training.tuning.trials import TrialRun

if TYPE_CHECKING:
    from sparse_encoder.training.tuning.search import Search

_OF_OPTIMIZE = ("callbacks", "catch", "gc_after_trial", "n_jobs", "show_progress_bar", "timeout")


def default_hp_space_optuna(trial: Any) -> dict[str, Any]:  # noqa: ANN401  (of an optional package)
    """Choose learning rate, epochs, seed and batch size."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-6, 1e-4, log=True),
        "num_train_epochs": trial.suggest_int("num_train_epochs", 1, 5),
        "seed": trial.suggest_int("seed", 1, 40),
        "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [4, 8, 16, 32, 64]),
    }


class OptunaBackend:
    """Let a study of optuna choose.

    Its options are those of ``optuna.create_study`` and, of ``Study.optimize``, ``callbacks``, ``catch``,
    ``gc_after_trial``, ``show_progress_bar`` and ``timeout`` (seconds). A trial whose gradients are not finite any more
    has failed, like those with an error in ``catch``, and the search goes on.

    Raises:
        ImportError: If optuna is not installed.
    """

    name = "optuna"

    def __init__(self) -> None:
        try:
            self._optuna: Any = import_module("optuna")  # optional
        except ImportError as reason:
            raise ImportError("backend 'optuna' needs optuna: pip install 'sparse-encoder[hpo]'") from reason

    def default_space(self, trial: Any) -> dict[str, Any]:  # noqa: ANN401  (as above)
        """Choose learning rate, epochs, seed and batch size."""
        return default_hp_space_optuna(trial)

    def run(self, search: Search) -> BestRun | list[BestRun] | None:
        """Optimize a study.

        Raises:
            ValueError: If trials are to run side by side.
            RuntimeError: If no trial came to its end.
        """
        options = dict(search.options)
        optimize = {name: options.pop(name) for name in _OF_OPTIMIZE if name in options}
        catch = optimize.pop("catch", ())
        failures = (FloatingPointError, *((catch,) if isinstance(catch, type) else catch))
        if optimize.pop("n_jobs", 1) != 1:
            raise ValueError("n_jobs must be 1: the trials share one trainer")
        if "directions" in options:
            raise ValueError("directions is called direction here; give it a list")
        if not search.trainer.is_world_process_zero():
            self._follow(search, failures)
            return None
        study = self._optuna.create_study(directions=list(search.directions), **options)
        study.optimize(partial(self._objective, search), n_trials=search.n_trials, catch=failures, **optimize)
        search.tell(None)
        return _best(study)

    def _objective(self, search: Search, trial: Any) -> float | list[float]:  # noqa: ANN401  (as above)
        """Run a trial; returns its objectives."""
        values = search.values_of(trial)
        run = search.trial_run(trial, trial.number, values, trial.params)
        search.tell((self._frozen(trial), values, run.name))
        one = len(search.directions) == 1
        try:
            objectives = search.run(run, _Reporter(trial) if one else None)
        except TrialPruned:
            raise self._optuna.TrialPruned from None
        return objectives[0] if one else objectives

    def _follow(self, search: Search, failures: tuple[type[Exception], ...]) -> None:
        """Run the trials that the first process tells of."""
        ended: tuple[type[Exception], ...] = (TrialPruned, *failures)
        while (told := search.tell(_NOTHING)) is not None:
            trial, values, name = told
            try:
                search.run(TrialRun(trial=trial, values=values, params=trial.params, name=name))
            except ended:
                continue

    def _frozen(self, trial: Any) -> Any:  # noqa: ANN401  (as above)
        """Return a trial as it is now, for processes that cannot ask the study; it answers what has been chosen."""
        return self._optuna.trial.FrozenTrial(
            number=trial.number,
            trial_id=trial.number,
            state=self._optuna.trial.TrialState.RUNNING,
            value=None,
            datetime_start=trial.datetime_start,
            datetime_complete=None,
            params=dict(trial.params),
            distributions=dict(trial.distributions),
            user_attrs=dict(trial.user_attrs),
            system_attrs={},
            intermediate_values={},
        )


_NOTHING: Any = None  # what other processes than the first have to say


class _Reporter:
    """Tell a trial of evaluations, and ask whether it goes on."""

    def __init__(self, trial: Any) -> None:  # noqa: ANN401  (as above)
        self.trial, self.last_step = trial, -1

    def __call__(self, objectives: list[float], metrics: dict[str, float], step: int) -> bool:
        if step == self.last_step:  # optuna takes one report of each
            return False
        self.last_step = step
        self.trial.report(objectives[0], step)
        return bool(self.trial.should_prune())


def _best(study: Any) -> BestRun | list[BestRun]:  # noqa: ANN401  (as above)
    """Return the best of the trials that came to their end; of several objectives, those that none beats in all."""
    states = [each.state.name for each in study.trials]
    if "COMPLETE" not in states:
        counts = {name: states.count(name) for name in sorted(set(states))}
        raise RuntimeError(f"no trial came to its end, so there is no best one: {counts}")
    if len(study.directions) > 1:
        return [BestRun(str(each.number), list(each.values), dict(each.params), study) for each in study.best_trials]
    best = study.best_trial
    return BestRun(str(best.number), best.value, dict(best.params), study)
