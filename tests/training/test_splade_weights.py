from __future__ import annotations

import logging
from pathlib import Path

import pytest
from torch import nn
from training_helpers import Anything, pairs, splade_loss, tiny_encoder, trainer

from sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
from sparse_encoder.training import (
    SchedulerType,
    SpladeRegularizerWeightSchedulerCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from sparse_encoder.training.events.flow import DefaultFlowCallback
from sparse_encoder.training.events.splade_weights import schedule_splade_weights

WEIGHTS = {"document_regularizer_weight": 3e-5, "query_regularizer_weight": 5e-5}


class Watch(TrainerCallback):
    """Write down the weights during every update."""

    def __init__(self, loss: SpladeLoss) -> None:
        self.loss = loss
        self.weights: list[tuple[float, float | None]] = []

    def on_pre_optimizer_step(self, *_: object, **__: object) -> None:
        self.weights.append((self.loss.document_regularizer_weight, self.loss.query_regularizer_weight))


def test_the_weights_of_six_updates_are_those_of_the_peer(tmp_path: Path) -> None:
    model = tiny_encoder()
    loss = splade_loss(model, **WEIGHTS)
    watch = Watch(loss)
    trainer(tmp_path, model, loss=loss, num_train_epochs=2, callbacks=[watch]).train()
    documents, queries = zip(*watch.weights, strict=True)
    assert documents == pytest.approx([0, 7.5e-6, 3e-5, 3e-5, 3e-5, 3e-5])
    assert queries == pytest.approx([0, 1.25e-5, 5e-5, 5e-5, 5e-5, 5e-5])


@pytest.mark.parametrize(("kind", "expected"), [("linear", 0.25), ("quadratic", 0.0625), (SchedulerType.LINEAR, 0.25)])
def test_a_weight_rises_in_a_line_or_by_the_square(kind: Anything, expected: float) -> None:
    callback = SpladeRegularizerWeightSchedulerCallback(splade_loss(tiny_encoder()), kind, warmup_ratio=0.5)
    assert [callback.factor(step, 8) for step in (0, 1, 4, 8)] == [0.0, expected, 1.0, 1.0]
    assert callback.factor(0, 1) == 0.0  # there is always an update of warm-up


def test_the_weights_are_in_the_rows_that_callbacks_see(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []

    class Keep(TrainerCallback):
        def on_log(self, *_: object, logs: dict[str, float] | None = None, **__: object) -> None:
            rows.append(dict(logs or {}))

    run = trainer(tmp_path, num_train_epochs=1, callbacks=[Keep])
    run.train()
    assert [row["document_regularizer_weight"] for row in rows] == [0.0, 3e-3, 3e-3, 3e-3]
    assert [row["query_regularizer_weight"] for row in rows] == [0.0, 5e-3, 5e-3, 5e-3]
    assert not any("document_regularizer_weight" in row for row in run.state.log_history)


def test_queries_without_a_weight_stay_without(tmp_path: Path) -> None:
    model = tiny_encoder()
    loss = SpladeLoss(model, SparseMultipleNegativesRankingLoss(model), document_regularizer_weight=1e-3)
    run = trainer(tmp_path, model, loss=loss, num_train_epochs=1)
    run.train()
    assert loss.query_regularizer_weight is None
    assert "query_regularizer_loss" not in run.state.log_history[0]


def test_evaluations_use_the_full_weights(tmp_path: Path) -> None:
    model = tiny_encoder()
    loss = splade_loss(model)
    run = trainer(tmp_path, model, loss=loss, eval_dataset=pairs(4), num_train_epochs=1, learning_rate=0.0)
    before = run.evaluate()["eval_loss"]
    callback = run.callback_handler.callbacks[1]
    callback.on_step_begin(run.args, TrainerState(max_steps=9), TrainerControl())
    assert loss.document_regularizer_weight == 0.0
    assert run.evaluate()["eval_loss"] == before
    assert loss.document_regularizer_weight == 0.0
    assert run.state.log_history[-1]["eval_document_regularizer_loss"] > 0


def test_a_second_run_begins_anew(tmp_path: Path) -> None:
    model = tiny_encoder()
    loss = splade_loss(model)
    watch = Watch(loss)
    run = trainer(tmp_path, model, loss=loss, num_train_epochs=1, callbacks=[watch])
    run.train()
    assert (loss.document_regularizer_weight, loss.query_regularizer_weight) == (3e-3, 5e-3)
    run.train()
    assert watch.weights[:3] == watch.weights[3:]


def test_one_given_further_back_is_moved_to_the_front(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_encoder()
    loss = splade_loss(model)
    own = SpladeRegularizerWeightSchedulerCallback(loss, "linear")
    with caplog.at_level(logging.WARNING):
        run = trainer(tmp_path, model, loss=loss, callbacks=[TrainerCallback, own])
    assert run.callback_handler.callbacks[1] is own
    assert not caplog.messages
    trainer(tmp_path)
    assert "one is added" in caplog.text


def test_other_losses_get_no_schedule(tmp_path: Path) -> None:
    run = trainer(tmp_path, loss=SparseMultipleNegativesRankingLoss)
    kinds = [type(each) for each in run.callback_handler.callbacks]
    assert SpladeRegularizerWeightSchedulerCallback not in kinds


def test_bad_options_are_refused() -> None:
    loss = splade_loss(tiny_encoder())
    with pytest.raises(ValueError, match="must be a SpladeLoss, got Linear"):
        SpladeRegularizerWeightSchedulerCallback(nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'cubic'; choose from \['linear', 'quadratic'\]"):
        SpladeRegularizerWeightSchedulerCallback(loss, "cubic")
    for ratio in (0.0, 1.5, -1.0, float("nan")):
        with pytest.raises(ValueError, match="warmup_ratio must be > 0"):
            SpladeRegularizerWeightSchedulerCallback(loss, warmup_ratio=ratio)


def log_row(callbacks: list[TrainerCallback]) -> dict[str, float]:
    row: dict[str, float] = {}
    for callback in callbacks:
        callback.on_log(Anything, TrainerState(), TrainerControl(), logs=row)
    return row


def test_several_losses_have_a_schedule_each_and_rows_by_dataset(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_encoder()
    first, second = splade_loss(model), splade_loss(model, document_regularizer_weight=7e-3)
    own = SpladeRegularizerWeightSchedulerCallback(second)
    callbacks = [DefaultFlowCallback(), TrainerCallback(), own]
    plain = SparseMultipleNegativesRankingLoss(model)
    losses: dict[str, nn.Module] = {"a": plain, "b": first, "c": second, "d": first}
    with caplog.at_level(logging.WARNING):
        schedule_splade_weights(callbacks, losses)
    assert "one is added" in caplog.text
    assert [type(each) for each in callbacks] == [
        DefaultFlowCallback,
        SpladeRegularizerWeightSchedulerCallback,
        SpladeRegularizerWeightSchedulerCallback,
        TrainerCallback,
    ]
    assert callbacks[1].loss is first  # type: ignore[attr-defined]
    assert callbacks[2] is own
    assert log_row(callbacks) == {
        "document_regularizer_weight_b": 3e-3,
        "query_regularizer_weight_b": 5e-3,
        "document_regularizer_weight_c": 7e-3,
        "query_regularizer_weight_c": 5e-3,
    }
    schedule_splade_weights(callbacks, {"b": first, "c": first})  # one loss: plain names
    assert log_row(callbacks[:2]) == {"document_regularizer_weight": 3e-3, "query_regularizer_weight": 5e-3}
    assert len(callbacks) == 4


def test_a_loss_without_weights_is_left_alone() -> None:
    callbacks: list[TrainerCallback] = [DefaultFlowCallback()]
    schedule_splade_weights(callbacks, SparseMultipleNegativesRankingLoss(tiny_encoder()))
    assert len(callbacks) == 1
