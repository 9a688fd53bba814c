"""Follow a run, so that the README of every checkpoint tells it: data, losses, settings, log, time.

What costs anything, such as counting tokens, is done when the first README is written, and once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from sparse_encoder.model_card import TRAINED_TAG
from sparse_encoder.model_card_base import STEP, TRAINING_LOSS, VALIDATION_LOSS, ModelCardData
from sparse_encoder.model_card_datasets import DatasetFacts
from sparse_encoder.model_card_losses import LossFacts
from sparse_encoder.model_card_results import EvaluationResult
from sparse_encoder.training.card.facts import (
    chosen_settings,
    describe_datasets,
    describe_losses,
    losses_by_name,
    named_datasets,
    token_counter,
    told_settings,
    total_rows,
)
from sparse_encoder.training.card.logs import PREFIX, chosen_metric, loss_values, rows_of, seconds_of, training_values
from sparse_encoder.training.card.results import primary_metrics, replaced, results_in, single_evaluators
from sparse_encoder.training.events.protocol import TrainerCallback
from sparse_encoder.training.sharding import is_sharded

if TYPE_CHECKING:
    from sparse_encoder.training.events.protocol import Arguments, Context
    from sparse_encoder.training.state import TrainerControl, TrainerState


class CardTrainer(Protocol):
    """What a card asks of a trainer; ``loss``, ``processing_class`` and ``evaluator`` are asked for if there."""

    model: Any
    args: Any
    state: TrainerState
    train_dataset: Any
    eval_dataset: Any


class ModelCardCallback(TrainerCallback):
    """Bring the card of a model up to date while it is trained; a model without ``model_card_data`` is left alone.

    The trainer adds it behind all others and calls ``on_init_end(args, state, control, model=..., trainer=...)``.

    Args:
        default_args_dict: The settings as they are by default, to tell which of them were chosen.
    """

    def __init__(self, default_args_dict: Mapping[str, Any]) -> None:  # values of settings
        self.default_args_dict = dict(default_args_dict)
        self._trainer: CardTrainer | None = None
        self._state: TrainerState | None = None
        self._card: ModelCardData | None = None
        self._told: ModelCardData | None = None  # the card that has the datasets already
        self._losses: dict[str | None, LossFacts] = {}
        self._described: tuple[list[DatasetFacts], list[DatasetFacts]] | None = None
        self._started: float | None = None
        self._results: dict[int, list[EvaluationResult]] = {}  # of the best step and the last one

    def on_init_end(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context
    ) -> TrainerControl | None:
        """Take down losses and the number of rows; offer to tell the rest when it is needed."""
        self._trainer = context.get("trainer", self._trainer)
        card = self._follow(context.get("model"), state)
        hub_id = getattr(args, "hub_model_id", None)
        if card is not None and card.model_id is None and hub_id is not None:
            card.set_model_id(hub_id)
        return None

    def on_train_begin(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context
    ) -> TrainerControl | None:
        """Take down the settings, and what an earlier part of this run has logged."""
        card = self._follow(context.get("model"), state)
        if card is not None:
            settings = args.to_dict()
            card.all_hyperparameters = told_settings(settings)
            card.non_default_hyperparameters = chosen_settings(settings, self.default_args_dict)
            self._take_up(card, args, state)
            card.log_is_closed = False
            card.best_model_step = None
            card.resumed_at = state.global_step or None
            card.training_seconds, card.evaluation_seconds = 0.0, 0.0
            self._started = time.perf_counter()
        return None

    def on_log(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context
    ) -> TrainerControl | None:
        """Log the training loss."""
        card = self._follow(context.get("model"), state)
        if card is not None:
            logs = context.get("logs") or {}
            card.add_log_row(state.global_step, state.epoch, training_values(logs))
            has_best = getattr(args, "load_best_model_at_end", False) and state.best_model_checkpoint is not None
            if "train_loss" in logs and has_best:  # the model has the weights of the best step by now
                card.eval_results = self._results.get(state.best_global_step or 0, card.eval_results)
        return None

    def on_evaluate(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context
    ) -> TrainerControl | None:
        """Log the losses of an evaluation and the metric that decides, and add up its time."""
        card = self._follow(context.get("model"), state)
        metrics = context.get("metrics") or {}
        if card is not None:
            values = loss_values(metrics, self._eval_names())
            values |= chosen_metric(metrics, getattr(args, "metric_for_best_model", None))
            card.add_log_row(state.global_step, state.epoch, values)
            if self._started is not None:
                card.evaluation_seconds += seconds_of(metrics)
                self._keep(state, state.global_step, list(card.eval_results))
        return None

    def on_train_end(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context
    ) -> TrainerControl | None:
        """Tell what is left to tell; from now on the card is on its own."""
        card = self._follow(context.get("model"), state)
        if card is not None:
            if state.is_world_process_zero:
                self._report()
            self._started = None
            card.log_is_closed = True
            card.ask_before_writing(None)
        return None

    def _take_up(self, card: ModelCardData, args: Arguments, state: TrainerState) -> None:
        """Put what an earlier part of this run has logged on the card: its rows, and what evaluators found."""
        before = [row for row in card.training_logs if row[STEP] < 0]
        names = self._eval_names()
        history = rows_of(state.log_history, names)
        card.training_logs = [*before, *history]
        evaluators = single_evaluators(getattr(self._trainer, "evaluator", None))
        losses = [VALIDATION_LOSS, *(f"{name} loss" for name in names if name)]
        chosen = str(getattr(args, "metric_for_best_model", None) or "").removeprefix(PREFIX)
        shown = [TRAINING_LOSS, *primary_metrics(evaluators), *losses, chosen]
        for row in history:
            card.logged_metrics += [name for name in shown if name in row and name not in card.logged_metrics]
        self._results = {}
        results: list[EvaluationResult] = []
        for logged in state.log_history:
            if found := results_in(logged, evaluators):
                results = replaced(results, found)
                self._keep(state, int(logged["step"]), results)
        if results:
            card.eval_results = replaced(card.eval_results, results)

    def _keep(self, state: TrainerState, step: int, results: list[EvaluationResult]) -> None:
        """Keep results for as long as their weights may be the ones that are saved."""
        self._results[step] = results
        self._results = {at: each for at, each in self._results.items() if at in (step, state.best_global_step)}

    def _follow(self, model: object, state: TrainerState) -> ModelCardData | None:
        """Return the card of the model, prepared when it is seen for the first time: each trial has its own."""
        self._state = state
        card = getattr(model, "model_card_data", None)
        if not isinstance(card, ModelCardData):
            return None
        if card is not self._card:
            self._card = card
            self._prepare(card)
        return card

    def _prepare(self, card: ModelCardData) -> None:
        """Tell the card what is known before the first update."""
        card.add_tags(TRAINED_TAG)
        card.ask_before_writing(self._report)
        if self._trainer is None:
            return
        size = total_rows(self._trainer.train_dataset)
        card.tags = [tag for tag in card.tags if not tag.startswith("dataset_size:")]
        if size is not None:
            card.add_tags(f"dataset_size:{size}")
        loss = getattr(self._trainer, "loss", None)
        card.set_losses(losses_by_name(loss).values())
        self._losses = self._losses or describe_losses(loss)  # now: schedules change the weights of losses

    def _report(self) -> None:
        """Bring the card up to date: called right before a README is written."""
        card, state, trainer = self._card, self._state, self._trainer
        if card is None or state is None:
            return
        card.best_model_step = state.best_global_step
        if self._started is not None:
            card.training_seconds = time.perf_counter() - self._started
        if trainer is None:
            return
        if self._described is None:
            count = token_counter(trainer.model, getattr(trainer, "processing_class", None))
            self._described = (
                describe_datasets(trainer.train_dataset, self._losses, count),
                describe_datasets(trainer.eval_dataset, self._losses, count),
            )
        if self._told is not card:
            self._told = card
            card.describe_train_datasets(self._described[0])
            card.describe_eval_datasets(self._described[1])
            if card.generate_widget_examples and not card.widget:
                datasets = named_datasets(trainer.eval_dataset) or named_datasets(trainer.train_dataset)
                card.set_widget_examples({str(name): each for name, each in datasets.items()})
        if is_sharded(trainer.model):
            card.usage_examples = []  # nothing to run the model on

    def _eval_names(self) -> list[str | None]:
        return [] if self._trainer is None else list(named_datasets(self._trainer.eval_dataset))
