"""The callback that ends a run when its metric no longer improves; it decides nothing about saving."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from sparse_encoder.training.events.protocol import Arguments, Context, ExportableState, TrainerCallback
from sparse_encoder.training.state import TrainerControl, TrainerState

logger = logging.getLogger(__name__)


class EarlyStoppingCallback(TrainerCallback, ExportableState):
    """Stop when ``metric_for_best_model`` has not improved for some evaluations.

    An evaluation counts as an improvement if it beats the best one before it by more than the threshold. The counter is
    saved with checkpoints, and begins at zero with a new run. Unlike in the peer, NaN never is an improvement.

    Args:
        early_stopping_patience: Evaluations in a row without improvement that end the run.
        early_stopping_threshold: What an improvement must exceed, in units of the metric; ``None`` is 0.

    Raises:
        ValueError: If the patience is below 1 or the threshold negative.
    """

    def __init__(self, early_stopping_patience: int = 1, early_stopping_threshold: float | None = 0.0) -> None:
        if early_stopping_patience < 1:
            raise ValueError(f"early_stopping_patience must be at least 1, got {early_stopping_patience}")
        threshold = 0.0 if early_stopping_threshold is None else early_stopping_threshold
        if not threshold >= 0:
            raise ValueError(f"early_stopping_threshold must be >= 0, got {threshold}")
        self.early_stopping_patience = early_stopping_patience
        self.early_stopping_threshold = threshold
        self.early_stopping_patience_counter = 0
        self._missing_told = False
        self._found_at = -1  # the update whose evaluation had the metric, perhaps in one of several datasets
        self._missing: list[str] = []  # what there was instead, until the evaluation is over

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Check that there will be something to watch.

        Raises:
            ValueError: If there is no metric, or there are no evaluations.
        """
        if args.metric_for_best_model is None:
            raise ValueError("EarlyStoppingCallback needs metric_for_best_model, for example 'eval_loss'")
        if args.eval_strategy == "no":
            raise ValueError("EarlyStoppingCallback needs eval_strategy 'steps' or 'epoch', got 'no'")
        if not args.load_best_model_at_end:
            logger.warning("EarlyStoppingCallback without load_best_model_at_end=True: the last model is kept")
        if state.global_step == 0:
            self.early_stopping_patience_counter = 0
        self._missing_told, self._found_at, self._missing = False, -1, []

    def on_step_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Say once if no dataset of the evaluation before this had the metric."""
        if self._missing and not self._missing_told:
            logger.warning(
                "early stopping looks for %s, which is not among %s", args.metric_for_best_model, self._missing
            )
            self._missing_told = True
        self._missing = []

    def on_train_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Say it at the end too."""
        self.on_step_begin(args, state, control)

    def on_evaluate(
        self,
        args: Arguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **context: Context,
    ) -> None:
        """Compare an evaluation with the best one before it; the trainer notes a new best only after this."""
        metrics = metrics or {}
        name = args.metric_for_best_model
        if name is None:
            return
        name = name if name.startswith("eval_") else f"eval_{name}"
        if name not in metrics:
            self._missing = [] if self._found_at == state.global_step else [*self._missing, *sorted(metrics)]
            return
        self._found_at, self._missing = state.global_step, []
        self.check_metric_value(args, state, control, metrics[name])
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True

    def check_metric_value(
        self, args: Arguments, state: TrainerState, control: TrainerControl, metric_value: float
    ) -> None:
        """Count an evaluation that is no improvement; override it for another notion of one.

        Args:
            args: Say whether greater is better.
            state: Has the best value before this evaluation.
            control: Not used here.
            metric_value: Of this evaluation.
        """
        if self._improves(metric_value, state.best_metric, greater_is_better=bool(args.greater_is_better)):
            self.early_stopping_patience_counter = 0
        else:
            self.early_stopping_patience_counter += 1

    def state(self) -> dict[str, Any]:  # as ExportableState says
        """Return what a checkpoint keeps."""
        return {
            "args": {
                "early_stopping_patience": self.early_stopping_patience,
                "early_stopping_threshold": self.early_stopping_threshold,
            },
            "attributes": {"early_stopping_patience_counter": self.early_stopping_patience_counter},
        }

    def _improves(self, value: float, best: float | None, *, greater_is_better: bool) -> bool:
        if best is None:
            return not math.isnan(value)
        gain = value - best if greater_is_better else best - value
        return gain > self.early_stopping_threshold
