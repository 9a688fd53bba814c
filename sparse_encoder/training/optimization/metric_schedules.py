"""Learning rate schedules that follow the metric of each evaluation; know nothing of what it measures.

They are stepped with the metric after every evaluation. A step without one, as after an update, changes nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, SupportsFloat

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

State = dict[str, Any]  # numbers, lists of them, and None


class PlateauSchedule(ReduceLROnPlateau):
    """Multiply the learning rates by a factor whenever the metric has not improved for a while.

    This is torch's schedule, whose state here is of numbers that JSON can hold.

    Args:
        optimizer: Whose learning rates are set.
        mode: "min" if smaller is better, "max" if larger is.
        factor: Between 0 and 1.
        patience: Evaluations without an improvement that are borne.
        threshold: What an improvement must exceed.
        threshold_mode: "rel" takes the threshold as a share of the best value, "abs" as a difference.
        cooldown: Evaluations after a reduction that are not counted.
        min_lr: Smallest learning rate.
        eps: Smallest change of a learning rate; a smaller one is left out.

    Raises:
        ValueError: If a value is out of range.
    """

    takes_metric = True

    def __init__(  # house: peer signature
        self,
        optimizer: Optimizer,
        *,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        _check(mode, threshold_mode, factor)
        _check_not_negative(patience=patience, threshold=threshold, cooldown=cooldown, min_lr=min_lr, eps=eps)
        super().__init__(
            optimizer,
            mode="max" if mode == "max" else "min",
            factor=factor,
            patience=patience,
            threshold=threshold,
            threshold_mode="abs" if threshold_mode == "abs" else "rel",
            cooldown=cooldown,
            min_lr=min_lr,
            eps=eps,
        )

    def step(self, metrics: SupportsFloat | None = None, epoch: None = None) -> None:  # type: ignore[override]
        """Take note of an evaluation.

        Args:
            metrics: The metric; None changes nothing.
            epoch: Counted by itself.
        """
        if metrics is not None:
            super().step(metrics)

    def state_dict(self) -> State:
        """Return what has been seen."""
        return {
            "best": self.best if math.isfinite(self.best) else None,
            "num_bad_epochs": self.num_bad_epochs,
            "cooldown_counter": self.cooldown_counter,
            "last_epoch": self.last_epoch,
        }

    def load_state_dict(self, state_dict: State) -> None:
        """Go on from a state; the learning rates are the optimizer's."""
        self.best = self.mode_worse if state_dict["best"] is None else state_dict["best"]
        self.num_bad_epochs = state_dict["num_bad_epochs"]
        self.cooldown_counter = state_dict["cooldown_counter"]
        self.last_epoch = state_dict["last_epoch"]
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


class GreedySchedule:
    """Raise the learning rates while the metric improves, lower them while it does not.

    Source: GreedyLR, 2025, https://arxiv.org/abs/2512.14527.

    Args:
        optimizer: Whose learning rates are set.
        mode: "min" if smaller is better, "max" if larger is.
        factor: Between 0 and 1: a rate is divided by it, or multiplied with it.
        patience: Evaluations of one kind that change nothing yet.
        threshold: What an improvement must exceed.
        threshold_mode: "rel" takes the threshold as a share of the best value, "abs" as a difference.
        cooldown: Evaluations after the rates were lowered that are not judged.
        warmup: Evaluations after the rates were raised that are not judged.
        min_lr: A rate is lowered to no less than this; the default stops any rate below 1e-3 from being lowered.
        max_lr: A rate is raised to no more than this.
        eps: Smallest change of a learning rate; a smaller one is left out.
        smooth: Whether to judge the mean of the last metrics.
        window_size: How many they are.
        reset_start: How often the rates are wanted lower than ``min_lr`` before all begins anew.

    Raises:
        ValueError: If a value is out of range.
    """

    takes_metric = True

    def __init__(  # house: peer signature
        self,
        optimizer: Optimizer,
        *,
        mode: str = "min",
        factor: float = 0.95,
        patience: int = 10,
        threshold: float = 1e-6,
        threshold_mode: str = "abs",
        cooldown: int = 0,
        warmup: int = 0,
        min_lr: float = 1e-3,
        max_lr: float = 1.0,
        eps: float = 1e-8,
        smooth: bool = False,
        window_size: int = 50,
        reset_start: int = 500,
    ) -> None:
        _check(mode, threshold_mode, factor)
        _check_not_negative(patience=patience, threshold=threshold, cooldown=cooldown, warmup=warmup, eps=eps)
        _check_not_negative(min_lr=min_lr, max_lr=max_lr, reset_start=reset_start)
        if smooth and not window_size >= 1:
            raise ValueError(f"window_size must be >= 1, got {window_size}")
        self.optimizer = optimizer
        self.factor, self.patience, self.eps = factor, patience, eps
        self.cooldown, self.warmup, self.reset_start = cooldown, warmup, reset_start
        self.min_lr, self.max_lr = min_lr, max_lr
        self._larger = mode == "max"
        self._threshold, self._relative = threshold, threshold_mode == "rel"
        self._first_rates = self.get_last_lr()
        self._window: deque[float] = deque(maxlen=window_size if smooth else 1)
        self._best: float | None = None
        self._good = self._bad = self._pause = 0
        self._lows_left = reset_start

    def get_last_lr(self) -> list[float]:
        """Return the learning rate of each group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def step(self, metrics: SupportsFloat | None = None) -> None:
        """Take note of an evaluation.

        Args:
            metrics: The metric; None changes nothing.
        """
        if metrics is None:
            return
        current = self._smoothed(float(metrics))
        if self._pause > 0:
            self._pause -= 1
            self._good = self._bad = 0
            return
        if self._is_better(current):
            self._best = current
            self._good, self._bad = self._good + 1, 0
        else:
            self._good, self._bad = 0, self._bad + 1
        if self._good > self.patience:
            self._raise()
        elif self._bad > self.patience:
            self._lower()

    def state_dict(self) -> State:
        """Return what has been seen."""
        return {
            "best": self._best,
            "good": self._good,
            "bad": self._bad,
            "pause": self._pause,
            "lows_left": self._lows_left,
            "window": list(self._window),
            "first_rates": self._first_rates,
        }

    def load_state_dict(self, state_dict: State) -> None:
        """Go on from a state; the learning rates are the optimizer's."""
        self._best = state_dict["best"]
        self._good, self._bad = state_dict["good"], state_dict["bad"]
        self._pause, self._lows_left = state_dict["pause"], state_dict["lows_left"]
        self._window = deque(state_dict["window"], maxlen=self._window.maxlen)
        self._first_rates = list(state_dict["first_rates"])

    def _restart(self) -> None:
        """Forget what has been seen."""
        self._best = None
        self._good = self._bad = self._pause = 0
        self._lows_left = self.reset_start
        self._window.clear()

    def _smoothed(self, value: float) -> float:
        """Return the mean of the last metrics; what is not finite is left out of later ones."""
        if not math.isfinite(value):
            return math.nan
        self._window.append(value)
        return sum(self._window) / len(self._window)

    def _is_better(self, value: float) -> bool:
        """Return whether a value is better than the best one; NaN never is."""
        if self._best is None:
            return math.isfinite(value)
        margin = self._best * self._threshold if self._relative else self._threshold
        return value > self._best + margin if self._larger else value < self._best - margin

    def _raise(self) -> None:
        """Raise the learning rates."""
        for group in self.optimizer.param_groups:
            rate = min(group["lr"] / self.factor, self.max_lr)
            if rate - group["lr"] > self.eps:
                group["lr"] = rate
        self._pause, self._good, self._lows_left = self.warmup, 0, self.reset_start

    def _lower(self) -> None:
        """Lower the learning rates, or begin anew where that has not been possible for long."""
        groups = self.optimizer.param_groups
        for group in groups:
            rate = max(group["lr"] * self.factor, self.min_lr)
            if group["lr"] - rate > self.eps:
                group["lr"] = rate
        if all(group["lr"] <= self.min_lr for group in groups):
            self._lows_left -= 1
            if self._lows_left <= 0:
                for group, rate in zip(groups, self._first_rates, strict=True):
                    group["lr"] = rate
                self._restart()
        self._pause, self._bad = self.cooldown, 0


METRIC_SCHEDULES: dict[str, Callable[..., PlateauSchedule] | Callable[..., GreedySchedule]] = {
    "greedy": GreedySchedule,
    "reduce_lr_on_plateau": PlateauSchedule,
}


def without_parameters() -> Optimizer:
    """Return an optimizer of a single number, to try the options of a schedule on."""
    return SGD([nn.Parameter(torch.zeros(1))], lr=1.0)


def _check(mode: str, threshold_mode: str, factor: float) -> None:
    if mode not in ("max", "min"):
        raise ValueError(f"mode must be 'max' or 'min', got {mode!r}")
    if threshold_mode not in ("abs", "rel"):
        raise ValueError(f"threshold_mode must be 'abs' or 'rel', got {threshold_mode!r}")
    if not 0 < factor < 1:
        raise ValueError(f"factor must be > 0 and < 1, got {factor}")


def _check_not_negative(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} must be >= 0, got {value}")
