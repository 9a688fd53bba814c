"""A stand-in for ray tune with what a search uses of it, after its documented interface; ray itself is large.

What it hands to a trial is pickled, as ray does it, and a trial may run in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import pickle
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any


class Range:
    """Something to choose from."""

    def __init__(self, kind: str, *bounds: Any) -> None:  # noqa: ANN401
        self.kind, self.bounds = kind, bounds

    def sample(self, source: random.Random) -> Any:  # noqa: ANN401
        if self.kind == "choice":
            return source.choice(self.bounds[0])
        low, high = self.bounds
        if self.kind == "randint":
            return source.randrange(low, high)
        return low * (high / low) ** source.random()  # loguniform


class Trial:
    def __init__(self, number: int, config: dict[str, Any]) -> None:
        self.trial_id, self.config = f"f00d_{number:05d}", config
        self.reports: list[dict[str, Any]] = []

    @property
    def last_result(self) -> dict[str, Any]:
        return self.reports[-1]


class Analysis:
    def __init__(self, trials: list[Trial]) -> None:
        self.trials = trials

    def get_best_trial(self, metric: str, mode: str, scope: str) -> Trial | None:
        assert scope in ("last", "last-5-avg", "last-10-avg", "avg", "all")
        found = [each for each in self.trials if each.reports]
        choose = {"min": min, "max": max}[mode]
        return choose(found, key=lambda each: each.last_result[metric], default=None)


class FakeTune(ModuleType):
    """The module ``ray.tune``."""

    def __init__(self, *, in_process: bool = True) -> None:
        super().__init__("ray.tune")
        self.in_process = in_process
        self.current: Trial | None = None
        self.options: dict[str, Any] = {}

    def install(self, set_module: Callable[[Any, str, Any], None]) -> FakeTune:
        set_module(sys.modules, "ray", ModuleType("ray"))
        set_module(sys.modules, "ray.tune", self)
        return self

    def choice(self, values: list[Any]) -> Range:
        return Range("choice", values)

    def randint(self, low: int, high: int) -> Range:
        return Range("randint", low, high)

    def loguniform(self, low: float, high: float) -> Range:
        return Range("loguniform", low, high)

    def CLIReporter(self, metric_columns: list[str]) -> SimpleNamespace:
        return SimpleNamespace(metric_columns=metric_columns)

    def with_parameters(self, function: Callable[..., None], **parameters: Any) -> tuple[Any, bytes]:  # noqa: ANN401
        return function, pickle.dumps(parameters)

    def report(self, metrics: dict[str, Any], checkpoint: object = None) -> None:
        assert self.current is not None
        self.current.reports.append(dict(metrics))

    def get_context(self) -> SimpleNamespace:
        trial = self.current
        assert trial is not None
        return SimpleNamespace(get_trial_id=lambda: trial.trial_id)

    def run(
        self,
        trainable: tuple[Any, bytes],
        *,
        config: dict[str, Any],
        num_samples: int,
        **options: Any,  # noqa: ANN401
    ) -> Analysis:
        self.options = options
        source, trials = random.Random(0), []
        for number in range(num_samples):
            chosen = {name: each.sample(source) if isinstance(each, Range) else each for name, each in config.items()}
            trials.append(Trial(number, chosen))
            self._run(trainable, trials[-1])
        return Analysis(trials)

    def _run(self, trainable: tuple[Any, bytes], trial: Trial) -> None:
        if self.in_process:
            run_trial(self, trainable, trial)
            return
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        process = context.Process(target=run_alone, args=(pickle.dumps((trainable, trial)), results))
        process.start()
        trial.reports = results.get(timeout=120)
        process.join()


def run_trial(tune: FakeTune, trainable: tuple[Any, bytes], trial: Trial) -> None:
    function, parameters = trainable
    tune.current = trial
    try:
        function(trial.config, **pickle.loads(parameters))
    finally:
        tune.current = None


def run_alone(pickled: bytes, results: Any) -> None:  # noqa: ANN401
    """Run a trial in this process, which has been started for it, in a folder that is not the searcher's."""
    tune = FakeTune().install(lambda modules, name, value: modules.update({name: value}))
    trainable, trial = pickle.loads(pickled)
    try:
        run_trial(tune, trainable, trial)
    finally:
        results.put(trial.reports)


def folder_names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())
