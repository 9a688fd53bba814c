"""What a search for settings and the library that steers it have to say to each other; knows no such library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from sparse_encoder.training.tuning.search import Search

Trial = Any  # of the backend's own kind
Values = Mapping[str, Any]  # settings of several types, by name
Space = Callable[[Trial], Values]
Objective = Callable[[dict[str, float]], Any]  # a number, or one for each direction
Report = Callable[[list[float], dict[str, float], int], bool]
"""Takes objectives, metrics and the number of updates of an evaluation; returns whether the trial is given up."""

DIRECTIONS = ("maximize", "minimize")


class BestRun(NamedTuple):
    """The best trial of a search."""

    run_id: str
    """Number or name of the trial; ``run-{run_id}`` is its folder, unless ``hp_name`` says otherwise."""
    objective: float | list[float]
    """One number, or one for each direction."""
    hyperparameters: dict[str, Any]
    """What the trial chose, by name."""
    run_summary: Any | None = None
    """All of the search: the study of optuna, the analysis of ray."""


class TrialPruned(Exception):
    """The run of a trial was given up: it promises less than the others."""


class SearchBackend(Protocol):
    """A library that chooses what to try next."""

    name: str

    def default_space(self, trial: Trial) -> Values:
        """Choose settings for a trainer that is given no ``hp_space``."""
        ...

    def run(self, search: Search) -> BestRun | list[BestRun] | None:
        """Let the search try some settings; returns the best, one for each of several that none beats in all.

        Processes other than the first may return None.
        """
        ...
