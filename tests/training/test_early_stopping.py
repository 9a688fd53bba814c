from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
from training_helpers import Anything, arguments, pairs, trainer

from sparse_encoder.training import TrainerCallback, TrainerControl, TrainerState
from sparse_encoder.training.events.early_stopping import EarlyStoppingCallback


def stops_at(
    values: list[float], *, patience: int = 1, threshold: float | None = 0.0, greater: bool = False
) -> int | None:
    """Return the number of the evaluation that ends the run; the best value is noted behind each, as the loop does."""
    args = arguments(
        "out", eval_strategy="steps", metric_for_best_model="score", greater_is_better=greater, save_strategy="no"
    )
    callback, state, control = EarlyStoppingCallback(patience, threshold), TrainerState(), TrainerControl()
    callback.on_train_begin(args, state, control)
    for number, value in enumerate(values, start=1):
        callback.on_evaluate(args, state, control, metrics={"eval_score": value})
        if control.should_training_stop:
            return number
        best = state.best_metric
        if not math.isnan(value) and (best is None or (value > best if greater else value < best)):
            state.best_metric = value
    return None


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([3.0, 2.0, 1.0], {}, None),
        ([3.0, 2.0, 2.0], {}, 3),  # as good is no better
        ([3.0, 2.0, 2.5, 1.0], {"patience": 2}, None),  # an improvement sets the counter back
        ([3.0, 2.0, 2.5, 2.5], {"patience": 2}, 4),
        ([3.0, 2.0, 2.5, 1.9, 2.0, 1.95], {"patience": 2}, 6),
        ([3.0, 2.5, 2.0], {"threshold": 0.5}, 2),  # exactly the threshold is not more than it
        ([3.0, 2.75, 2.5, 1.0], {"threshold": 0.5, "patience": 3}, None),
        ([3.0, 2.0, 3.0], {"threshold": None}, 3),
        ([1.0, 2.0, 3.0], {"greater": True}, None),
        ([1.0, 2.0, 1.5], {"greater": True}, 3),
        ([math.nan, 1.0], {}, 1),
        ([2.0, math.nan, 1.0], {}, 2),
        ([math.inf, 1.0, 2.0], {}, 3),
    ],
)
def test_a_run_ends_when_nothing_improves(values: list[float], options: Anything, expected: int | None) -> None:
    assert stops_at(values, **options) == expected


class Scores:
    """Say what an evaluator would, one value after the other."""

    def __init__(self, values: list[float]) -> None:
        self.values = list(values)

    def __call__(self, *_: object, **__: object) -> dict[str, float]:
        return {"score": self.values.pop(0)}


def test_a_training_run_stops_and_keeps_its_best(tmp_path: Path) -> None:
    options = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "eval_score", "num_train_epochs": 3}
    own = EarlyStoppingCallback(early_stopping_patience=2)
    run = trainer(tmp_path, evaluator=Scores([0.1, 0.3, 0.2, 0.3, 0.9]), callbacks=[own], **options)
    assert run.train().global_step == 4
    assert (run.state.best_metric, run.state.best_global_step) == (0.3, 2)
    run.evaluator = Scores([0.4, 0.3, 0.2, 0.9])  # type: ignore[assignment]
    assert run.train().global_step == 3  # the counter begins anew, and so does the best metric


def test_it_needs_a_metric_and_evaluations(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs metric_for_best_model"):
        trainer(tmp_path, callbacks=[EarlyStoppingCallback], eval_dataset=pairs(4), eval_strategy="epoch").train()
    with pytest.raises(ValueError, match="needs eval_strategy 'steps' or 'epoch'"):
        trainer(tmp_path, callbacks=[EarlyStoppingCallback], metric_for_best_model="loss").train()


def test_bad_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="patience must be at least 1, got 0"):
        EarlyStoppingCallback(0)
    for threshold in (-0.1, math.nan):
        with pytest.raises(ValueError, match="threshold must be >= 0"):
            EarlyStoppingCallback(early_stopping_threshold=threshold)


def test_other_evaluations_do_not_count_and_the_first_is_told(caplog: pytest.LogCaptureFixture) -> None:
    args = arguments("out", eval_strategy="epoch", metric_for_best_model="score", load_best_model_at_end=False)
    callback, state, control = EarlyStoppingCallback(), TrainerState(best_metric=5.0), TrainerControl()
    callback.on_train_begin(args, state, control)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            callback.on_evaluate(args, state, control, metrics={"eval_other_loss": 1.0})
            callback.on_step_begin(args, state, control)
    assert not control.should_training_stop
    assert callback.early_stopping_patience_counter == 0
    messages = [message for message in caplog.messages if "looks for" in message]
    assert messages == ["early stopping looks for score, which is not among ['eval_other_loss']"]
    callback.on_evaluate(arguments("out"), state, control, metrics={"eval_loss": 9.0})  # no metric: not in a run
    assert not control.should_training_stop


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_of_several_datasets_has_the_metric(place: int, caplog: pytest.LogCaptureFixture) -> None:
    args = arguments("out", eval_strategy="epoch", metric_for_best_model="b_loss", load_best_model_at_end=False)
    callback, state, control = EarlyStoppingCallback(), TrainerState(best_metric=5.0, global_step=3), TrainerControl()
    callback.on_train_begin(args, state, control)
    sets = [{"eval_a_loss": 1.0}, {"eval_c_loss": 1.0}]
    sets.insert(place, {"eval_b_loss": 9.0})
    with caplog.at_level(logging.WARNING):
        for metrics in sets:
            callback.on_evaluate(args, state, control, metrics=metrics)
        callback.on_train_end(args, state, control)
    assert control.should_training_stop
    assert [message for message in caplog.messages if "looks for" in message] == []


def test_its_counter_is_in_its_state() -> None:
    callback = EarlyStoppingCallback(3, 0.25)
    callback.early_stopping_patience_counter = 2
    state = callback.state()
    assert state == {
        "args": {"early_stopping_patience": 3, "early_stopping_threshold": 0.25},
        "attributes": {"early_stopping_patience_counter": 2},
    }
    again = EarlyStoppingCallback.from_state(state)
    assert again.state() == state
    assert isinstance(again, TrainerCallback)


def test_a_new_run_counts_from_zero_and_a_resumed_one_goes_on() -> None:
    args = arguments("out", eval_strategy="epoch", metric_for_best_model="loss", load_best_model_at_end=False)
    callback = EarlyStoppingCallback(3)
    callback.early_stopping_patience_counter = 2
    callback.on_train_begin(args, TrainerState(global_step=5), TrainerControl())
    assert callback.early_stopping_patience_counter == 2
    callback.on_train_begin(args, TrainerState(), TrainerControl())
    assert callback.early_stopping_patience_counter == 0
