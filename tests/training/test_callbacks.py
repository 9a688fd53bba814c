from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from training_helpers import Anything, arguments, pairs, trainer

from sparse_encoder.training import CallbackHandler, TrainerCallback, TrainerControl, TrainerState
from sparse_encoder.training.events.flow import DefaultFlowCallback

EVENTS = [name for name in dir(TrainerCallback) if name.startswith("on_")]


class Recorder(TrainerCallback):
    """Write down every event, and whatever this subclass cares for."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.context: dict[str, Any] = {}

    def __getattribute__(self, name: str) -> Anything:
        if not name.startswith("on_"):
            return object.__getattribute__(self, name)

        def record(*_: object, **context: Anything) -> None:
            self.events.append(name)
            self.context = context

        return record


class Other(TrainerCallback):
    pass


class Under(Other):
    pass


def fire(handler: CallbackHandler, event: str, extra: dict[str, Any] | None = None) -> TrainerControl:
    return handler.fire(event, arguments("out"), TrainerState(), TrainerControl(), extra or {})


def test_a_run_fires_its_events_in_order(tmp_path: Path) -> None:
    recorder = Recorder()
    run = trainer(
        tmp_path,
        rows=pairs(6),  # batches of 4 and 2: one update
        gradient_accumulation_steps=2,
        num_train_epochs=1,
        eval_dataset=pairs(5),
        eval_strategy="steps",
        save_strategy="steps",
        callbacks=[recorder],
    )
    run.train()
    assert recorder.events == [
        "on_init_end",
        "on_train_begin",
        "on_epoch_begin",
        "on_step_begin",
        "on_substep_end",
        "on_pre_optimizer_step",
        "on_optimizer_step",
        "on_step_end",
        "on_log",
        "on_prediction_step",
        "on_log",
        "on_evaluate",
        "on_save",
        "on_epoch_end",
        "on_log",
        "on_train_end",
    ]
    assert set(EVENTS) == {*recorder.events, "on_predict", "on_push_begin"}
    assert {"model", "processing_class", "optimizer", "lr_scheduler", "train_dataloader", "eval_dataloader"} <= set(
        recorder.context
    )
    assert recorder.context["model"] is run.model
    assert recorder.context["optimizer"] is run.optimizer


def test_a_returned_control_takes_the_place_of_the_other() -> None:
    mine = TrainerControl(should_save=True)

    class Replace(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> TrainerControl:
            return mine

    assert fire(CallbackHandler([Replace, Other], {}), "on_step_end") is mine


def test_what_a_callback_adds_to_a_log_row_is_seen_behind_it() -> None:
    class Add(TrainerCallback):
        def on_log(self, *_: object, logs: dict[str, float] | None = None, **__: object) -> None:
            assert logs is not None
            logs["added"] = 1.0

    recorder = Recorder()
    fire(CallbackHandler([Add, recorder], {}), "on_log", {"logs": {"loss": 2.0}})
    assert recorder.context["logs"] == {"loss": 2.0, "added": 1.0}


def test_callbacks_are_taken_out_by_class_or_instance() -> None:
    under, second = Under(), Other()
    handler = CallbackHandler([under, second], {})
    assert handler.pop(Other) is under  # subclasses count
    assert handler.pop(under) is None
    assert handler.pop(second) is second
    assert handler.pop(Other) is None
    assert not handler.callbacks


def test_a_second_callback_of_a_class_is_told(caplog: pytest.LogCaptureFixture) -> None:
    handler = CallbackHandler([Other], {})
    with caplog.at_level(logging.WARNING):
        handler.add(Under)
        assert not caplog.messages
        handler.add(Other())
    assert "second callback of class Other" in caplog.text
    assert [type(each) for each in handler.callbacks] == [Other, Under, Other]


def test_the_trainer_hands_callbacks_on(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    other = Other()
    run.add_callback(other)
    run.remove_callback(Under)
    run.remove_callback(Under())
    assert run.pop_callback(Other) is other
    run.add_callback(Under)
    run.remove_callback(Under)
    assert not any(isinstance(each, Other) for each in run.callback_handler.callbacks)


def test_the_order_of_callbacks_is_flow_weights_own_report(tmp_path: Path) -> None:
    run = trainer(tmp_path, callbacks=[Other])
    assert [type(each).__name__ for each in run.callback_handler.callbacks] == [
        "DefaultFlowCallback",
        "SpladeRegularizerWeightSchedulerCallback",
        "SparsityMonitorCallback",
        "Other",
        "PrinterCallback",
        "ModelCardCallback",
    ]
    shown = trainer(tmp_path, disable_tqdm=False)
    assert type(shown.callback_handler.callbacks[-2]).__name__ == "ProgressCallback"


FLOW = [  # settings, step of 7 or end of an epoch, flags: log, evaluate, save, stop
    ({}, 1, "..."),
    ({"logging_first_step": True}, 1, "l.."),
    ({}, 2, "l.."),
    ({"logging_strategy": "no"}, 2, "..."),
    ({"eval_strategy": "steps", "eval_steps": 3}, 3, ".e."),
    ({"eval_strategy": "steps", "eval_steps": 3, "eval_delay": 4}, 3, "..."),
    ({"eval_strategy": "steps", "eval_steps": 3}, 7, ".e.x"),
    ({"save_strategy": "steps", "save_steps": 5}, 5, "..s"),
    ({"save_strategy": "steps", "save_steps": 5}, 7, "..sx"),
    ({"save_strategy": "epoch", "eval_strategy": "epoch"}, 7, "...x"),
    ({"save_strategy": "epoch", "eval_strategy": "epoch", "logging_strategy": "epoch"}, "epoch", "les"),
    ({"eval_strategy": "epoch", "eval_delay": 2}, "epoch", "..."),
    ({"save_strategy": "best", "eval_strategy": "steps", "eval_steps": 3}, 7, ".e.x"),
]


@pytest.mark.parametrize(("options", "moment", "expected"), FLOW)
def test_the_default_flow_raises_what_is_due(options: dict[str, Any], moment: int | str, expected: str) -> None:
    args = arguments("out", **{"logging_steps": 2, **options})
    state = TrainerState(max_steps=7, logging_steps=2, eval_steps=3, save_steps=5, epoch=1.0)
    control = TrainerControl()
    if isinstance(moment, int):
        state.global_step = moment
        DefaultFlowCallback().on_step_end(args, state, control)
    else:
        DefaultFlowCallback().on_epoch_end(args, state, control)
    assert control == TrainerControl(
        should_log="l" in expected,
        should_evaluate="e" in expected,
        should_save="s" in expected,
        should_training_stop="x" in expected,
    )


def test_a_callback_stops_an_epoch_or_the_run(tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def __init__(self, flag: str, step: int) -> None:
            self.flag, self.step = flag, step

        def on_step_end(self, args: Anything, state: TrainerState, control: TrainerControl, **_: object) -> None:
            if state.global_step == self.step:
                setattr(control, self.flag, True)

    run = trainer(tmp_path, num_train_epochs=3, callbacks=[Stop("should_epoch_stop", 1)])
    assert run.train().global_step == 7  # one update, then two epochs of three
    assert run.state.epoch == 3.0
    run = trainer(tmp_path, num_train_epochs=3, callbacks=[Stop("should_training_stop", 2)])
    assert run.train().global_step == 2
    assert run.train().global_step == 2  # flags are lowered at the start


def test_an_object_is_told_only_of_the_events_that_it_has() -> None:
    class Duck:
        def __init__(self) -> None:
            self.steps: list[int] = []

        def on_step_end(self, args: Anything, state: TrainerState, control: TrainerControl, **_: object) -> None:
            self.steps.append(state.global_step)

    duck: Anything = Duck()
    handler = CallbackHandler([duck], {})
    for event in EVENTS:
        fire(handler, event)
    assert duck.steps == [0]


@pytest.mark.parametrize("wrong", ["tensorboard", print, 3, object])
def test_what_has_no_event_is_no_callback(wrong: Anything) -> None:
    with pytest.raises(TypeError, match=r"must have one of the methods \['on_init_end', 'on_train_begin'"):
        CallbackHandler([wrong], {})


@pytest.mark.parametrize("reply", [True, {"should_save": True}, "stop"])
def test_another_reply_is_refused_by_name(reply: Anything) -> None:
    class Replies(TrainerCallback):
        def on_save(self, *_: object, **__: object) -> Anything:
            return reply

    with pytest.raises(TypeError, match=r"Replies\.on_save must return a TrainerControl or None, got"):
        fire(CallbackHandler([Replies], {}), "on_save")


def test_a_callback_may_take_itself_out() -> None:
    class Once(TrainerCallback):
        def on_save(self, *_: object, handler: CallbackHandler, **__: object) -> None:
            handler.pop(self)

    recorder = Recorder()
    handler = CallbackHandler([Once, recorder], {})
    fire(handler, "on_save", {"handler": handler})
    assert recorder.events == ["on_save"]
    assert handler.callbacks == [recorder]
