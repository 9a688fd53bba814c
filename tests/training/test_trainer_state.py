from __future__ import annotations

import json
import math
from collections import Counter

import pytest

from sparse_encoder.training import TrainerState
from sparse_encoder.training.state import read_spelled, spelled


def test_a_state_survives_json() -> None:
    state = TrainerState(epoch=1 / 3, global_step=7, best_metric=0.1, log_history=[{"loss": 0.1, "step": 7}])
    text = json.dumps(state.to_dict(), allow_nan=False)
    assert TrainerState.from_dict(json.loads(text)) == state


def test_numbers_that_are_not_finite_survive_strict_json() -> None:
    row = {"loss": math.nan, "grad_norm": math.inf, "a": -math.inf}
    text = json.dumps(TrainerState(log_history=[row]).to_dict(), allow_nan=False)
    back = TrainerState.from_dict(json.loads(text)).log_history[0]
    assert math.isnan(back["loss"])
    assert (back["grad_norm"], back["a"]) == (math.inf, -math.inf)


def test_missing_and_unknown_keys_are_named() -> None:
    values = TrainerState().to_dict()
    del values["epoch"]
    values["extra"] = 1
    with pytest.raises(ValueError, match=r"\['epoch'\].*\['extra'\]"):
        TrainerState.from_dict(values)


def test_all_of_a_state_survives_strict_json() -> None:
    state = TrainerState(
        best_metric=-math.inf,
        trial_params={"limit": math.inf, "word": "NaN", "path": "\\Infinity"},
        stateful_callbacks={"Mine": {"args": {}, "attributes": {"best": math.inf, "by step": {3: -math.inf, 5: 0.5}}}},
    )
    text = json.dumps(state.to_dict(), allow_nan=False)
    assert TrainerState.from_dict(json.loads(text)) == state


def test_keys_and_counters_survive_json() -> None:
    value = {"milestones": Counter({3: 1, 5: 2}), "both": {1: "a", "1": "b", None: [{}]}, "__pairs__": {"a": 1}}
    back = read_spelled(json.loads(json.dumps(spelled(value), allow_nan=False)))
    assert back == value
    assert isinstance(back["milestones"], Counter)
