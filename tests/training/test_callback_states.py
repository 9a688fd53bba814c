from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from training_helpers import Anything, trainer

from sparse_encoder.training import CallbackHandler, TrainerCallback, TrainerControl, TrainerState
from sparse_encoder.training.events.early_stopping import EarlyStoppingCallback
from sparse_encoder.training.events.protocol import ExportableState
from sparse_encoder.training.events.stateful import collect_states, restore_states


class Counter(TrainerCallback, ExportableState):
    def __init__(self, start: int) -> None:
        self.start = start
        self.count = start

    def state(self) -> dict[str, Any]:
        return {"args": {"start": self.start}, "attributes": {"count": self.count}}


class Foreign:
    """What transformers would call stateful, without any base of this library."""

    def __init__(self, word: str = "") -> None:
        self.word = word

    def on_log(self, *_: object, **__: object) -> None:
        self.word += "x"

    def state(self) -> dict[str, Any]:
        return {"args": {"word": self.word}, "attributes": {}}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Foreign:
        return cls(state["args"]["word"] + "!")


FLAGS = {
    "should_training_stop": False,
    "should_epoch_stop": True,
    "should_save": False,
    "should_evaluate": False,
    "should_log": False,
}


def test_states_are_collected_by_class() -> None:
    one, two = Counter(1), Counter(2)
    two.count = 7
    handler = CallbackHandler([TrainerCallback, one, EarlyStoppingCallback, two], {})
    control = TrainerControl(should_epoch_stop=True)
    states = collect_states(handler, control)
    assert states == {
        "Counter": [
            {"args": {"start": 1}, "attributes": {"count": 1}},
            {"args": {"start": 2}, "attributes": {"count": 7}},
        ],
        "EarlyStoppingCallback": {
            "args": {"early_stopping_patience": 1, "early_stopping_threshold": 0.0},
            "attributes": {"early_stopping_patience_counter": 0},
        },
        "TrainerControl": {"args": FLAGS, "attributes": {}},
    }
    assert collect_states(handler, control) == states  # does not grow
    assert json.loads(json.dumps(states)) == states


def test_states_are_given_back_in_place() -> None:
    one, two, foreign = Counter(1), Counter(2), Foreign("a")
    one.count, two.count = 5, 6
    saved = collect_states(CallbackHandler([one, foreign, two], {}), TrainerControl(True, False, True))  # type: ignore[list-item]
    plain, third = TrainerCallback(), Counter(30)
    handler = CallbackHandler([plain, Counter(10), Foreign(), Counter(20), third], {})  # type: ignore[list-item]
    control = restore_states(handler, TrainerControl(), json.loads(json.dumps(saved)))
    assert control == TrainerControl(should_save=True)  # what ended that run does not end this one
    first, restored, second = handler.callbacks[1:4]
    assert isinstance(first, Counter) and isinstance(second, Counter) and isinstance(restored, Foreign)
    assert [(each.start, each.count) for each in (first, second)] == [(1, 5), (2, 6)]
    assert restored.word == "a!"
    assert handler.callbacks[0] is plain
    assert handler.callbacks[4] is third  # nothing was saved for it


def test_without_saved_flags_they_stay(caplog: pytest.LogCaptureFixture) -> None:
    control = TrainerControl(should_log=True)
    with caplog.at_level(logging.WARNING):
        assert restore_states(CallbackHandler([], {}), control, {}) is control
        assert not caplog.messages
        restore_states(CallbackHandler([Counter(1)], {}), control, {"Gone": {}, "Counter": []})
    assert caplog.messages == ["the checkpoint has states of callbacks that this trainer does not have: Gone"]


def test_a_state_must_be_defined() -> None:
    class Without(TrainerCallback, ExportableState):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Without()  # type: ignore[abstract]


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Anything, state: TrainerState, control: TrainerControl, **_: object) -> None:
        control.should_training_stop |= state.global_step == self.step


@pytest.mark.parametrize(("restores", "last_step"), [(True, 4), (False, 5)])
def test_a_resumed_run_has_its_callbacks_back(tmp_path: Path, restores: bool, last_step: int) -> None:
    scores = [0.3, 0.2, 0.1, 0.1, 0.1, 0.1]  # the second is the first without improvement
    options = {
        "evaluator": lambda *_, **__: {"score": scores.pop(0)},
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "metric_for_best_model": "score",
        "restore_callback_states_from_checkpoint": restores,
    }
    first = trainer(tmp_path, callbacks=[EarlyStoppingCallback(3), StopAt(2)], **options)
    assert first.train().global_step == 2
    resumed = trainer(tmp_path, callbacks=[EarlyStoppingCallback(3)], **options)
    assert resumed.train(resume_from_checkpoint=True).global_step == last_step
    saved = json.loads((tmp_path / f"checkpoint-{last_step}" / "trainer_state.json").read_text())
    assert saved["stateful_callbacks"]["EarlyStoppingCallback"]["attributes"] == {"early_stopping_patience_counter": 3}
