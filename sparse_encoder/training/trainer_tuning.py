"""The methods of a trainer that make new models and search for settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from sparse_encoder.training.launching import new_model
from sparse_encoder.training.tuning.protocol import BestRun, Objective, SearchBackend, Space, Trial
from sparse_encoder.training.tuning.search import Search, SearchSettings, hyperparameter_search
from sparse_encoder.training.tuning.trials import TrialRun

if TYPE_CHECKING:
    from sparse_encoder.training.base import TrainerBase


class TrainerTuning:
    """What a trainer with ``model_init`` can do."""

    search: Search | None = None
    """The search that runs."""
    trial: TrialRun | None = None
    """The trial whose values the settings have at present."""

    def call_model_init(self, trial: object = None) -> nn.Module:
        """Make a model by ``model_init``.

        Args:
            trial: Handed over if ``model_init`` takes an argument.

        Raises:
            RuntimeError: If it takes more than one argument, or returns nothing.
        """
        return new_model(self._trainer, trial)

    def hyperparameter_search(  # house: peer signature
        self,
        hp_space: Space | None = None,
        compute_objective: Objective | None = None,
        n_trials: int | None = 20,
        direction: str | list[str] = "minimize",
        backend: str | SearchBackend | None = None,
        hp_name: Callable[[Trial], str] | None = None,
        **options: Any,  # noqa: ANN401  (of the backend)
    ) -> BestRun | list[BestRun] | None:
        """Train with various settings and find the best.

        Each trial has its settings applied first, then the seed, then a model made by ``model_init``; it trains in a
        folder of its own in ``args.output_dir``, ``run-0``, ``run-1`` and so on, and uploads nothing. The settings of
        the trainer are as they were, before every trial and in the end (in the peer those of the last trial stay), and
        so is the model: new. To train with the best: ``trainer.train(trial=best.hyperparameters)``.

        Args:
            hp_space: Takes a trial of optuna and returns settings by name; for ray, takes None and returns ranges. By
                default the learning rate, the epochs, the seed and the batch size vary.
            compute_objective: Makes of the metrics of an evaluation the number to search by, or a list of them for
                several directions. By default the loss, or the sum of all other metrics if there are any.
            n_trials: How many settings are tried, 20 if nothing is said (the peer's text says 100, its code 20); None
                leaves it to ``timeout``.
            direction: ``"minimize"`` or ``"maximize"``; a list of them looks for the best trade-offs.
            backend: ``"optuna"`` or ``"ray"``, or an object with the methods of :class:`SearchBackend`; by default the
                first that is installed.
            hp_name: Takes a trial and returns the name of its folder.
            options: Of ``optuna.create_study``, and of ``Study.optimize`` those that concern the search; or of
                ``ray.tune.run``.

        Returns:
            The best trial by the last evaluation of each; with several directions a list of those that none beats in
            all. None in processes other than the first.

        Raises:
            RuntimeError: If there is no ``model_init``, no backend is installed, or no trial came to its end.
            ImportError: If the backend is not installed.
            ValueError: If the backend is unknown, there is nothing to evaluate with, several datasets have no
                ``compute_objective``, or a trial has a value that is not allowed.
        """
        settings = SearchSettings(
            space=hp_space,
            compute_objective=compute_objective,
            n_trials=n_trials,
            directions=(direction,) if isinstance(direction, str) else tuple(direction),
            name=hp_name,
            options=options,
        )
        return hyperparameter_search(self._trainer, settings, backend)

    @property
    def _trainer(self) -> TrainerBase:
        return cast("TrainerBase", self)  # the only class that has these methods
