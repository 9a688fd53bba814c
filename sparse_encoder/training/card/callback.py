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
from sparse_encoder.training.card.logs import chosen_metric, loss_values, rows_of, seconds_of, training_values
from sparse_encoder.training.events.protocol import TrainerCallback

if TYPE_CHECKING:
    from sparse_encoder.training.events.protocol import Arguments, Context
    from sparse_encoder.training.state import TrainerControl, TrainerState

_SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM")
"""Ways of training in which no process has a whole model that it could run by itself."""


class CardTrainer(Protocol):
    """What a card asks of a trainer; ``loss``, ``processing_class`` and ``accelerator`` are asked for if there."""

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
            before = [row for row in card.training_logs if row[STEP] < 0]
            history = rows_of(state.log_history, self._eval_names())
            card.training_logs = [*before, *history]
            for name in (TRAINING_LOSS, VALIDATION_LOSS, *(f"{name} loss" for name in self._eval_names() if name)):
                if name not in card.logged_metrics and any(name in row for row in history):
                    card.logged_metrics.append(name)
            card.best_model_step = None
            card.training_seconds, card.evaluation_seconds = 0.0, 0.0
            self._started = time.perf_counter()
        return None

    def on_log(
        self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context
    ) -> TrainerControl | None:
        """Log the training loss."""
        card = self._follow(context.get("model"), state)
        if card is not None:
            card.add_log_row(state.global_step, state.epoch, training_values(context.get("logs") or {}))
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
            card.ask_before_writing(None)
        return None

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
        if _is_sharded(trainer):
            card.usage_examples = []  # nothing to run the model on

    def _eval_names(self) -> list[str | None]:
        return [] if self._trainer is None else list(named_datasets(self._trainer.eval_dataset))


def _is_sharded(trainer: CardTrainer) -> bool:
    """Return whether no process has a whole model that it could run by itself."""
    kind = getattr(getattr(trainer, "accelerator", None), "distributed_type", None)
    return str(getattr(kind, "value", kind)) in _SHARDED
