"""Callbacks against those of transformers: the same decisions, and theirs in our trainer."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from training_helpers import Anything, arguments, pairs, trainer

from sparse_encoder.training import TrainerCallback, TrainerControl, TrainerState
from sparse_encoder.training.events.early_stopping import EarlyStoppingCallback
from sparse_encoder.training.events.flow import DefaultFlowCallback
from sparse_encoder.training.events.progress import PrinterCallback, ProgressCallback
from sparse_encoder.training.events.protocol import EVENTS, ExportableState
from sparse_encoder.training.events.reporting import by_section

transformers = pytest.importorskip("transformers")


def test_the_events_are_those_of_the_peer() -> None:
    theirs = {name for name in dir(transformers.TrainerCallback) if name.startswith("on_")}
    assert set(EVENTS) == theirs


STRATEGIES = ("no", "steps", "epoch")
FLOWS = [
    {"logging_strategy": log, "eval_strategy": evaluate, "save_strategy": save, "eval_delay": delay, **first}
    for log, evaluate, save, delay, first in itertools.product(
        STRATEGIES, STRATEGIES, STRATEGIES, (0, 2, 5), ({}, {"logging_first_step": True})
    )
]


def flags(flow: Anything, options: dict[str, Any]) -> list[dict[str, bool]]:
    """Return what a flow wants at each of 7 updates, with an epoch of 2, and at the ends of epochs."""
    args, seen = arguments("out", **options), []
    for step in range(1, 8):
        state = TrainerState(global_step=step, epoch=step / 2, max_steps=7, logging_steps=2, eval_steps=3, save_steps=5)
        control = TrainerControl()
        flow.on_step_end(args, state, control)
        seen.append(dict(vars(control)))
        if step % 2 == 0:
            control = TrainerControl()
            flow.on_epoch_end(args, state, control)
            seen.append(dict(vars(control)))
    return seen


def test_the_default_flow_decides_as_the_peer() -> None:
    theirs = transformers.trainer_callback.DefaultFlowCallback()
    for options in FLOWS:
        assert flags(DefaultFlowCallback(), options) == flags(theirs, options), options


@pytest.mark.parametrize("greater", [True, False])
@pytest.mark.parametrize(("patience", "threshold"), [(1, 0.0), (2, 0.0), (2, 0.5), (3, 1.0)])
def test_early_stopping_counts_as_the_peer(greater: bool, patience: int, threshold: float) -> None:
    args = arguments("out", eval_strategy="epoch", metric_for_best_model="a", greater_is_better=greater)
    mine: Anything = EarlyStoppingCallback(patience, threshold)
    theirs = transformers.EarlyStoppingCallback(patience, threshold)
    state, control, other = TrainerState(), TrainerControl(), TrainerControl()
    for value in (4.0, 5.0, 5.25, 4.75, 5.5, 3.0, 3.0, 2.0, 2.5, 6.5, 6.5, 6.0):
        for callback, flag in ((mine, control), (theirs, other)):
            callback.on_evaluate(args, state, flag, metrics={"eval_a": value})
        assert mine.state() == theirs.state()
        assert control == other
        better = state.best_metric is None or (value > state.best_metric if greater else value < state.best_metric)
        state.best_metric = value if better else state.best_metric


class Theirs(transformers.TrainerCallback):  # type: ignore[misc,name-defined]
    """Written for transformers."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_step_end(self, args: Anything, state: Anything, control: Anything, **kwargs: Anything) -> Anything:
        self.seen.append(f"step {state.global_step}, rate {kwargs['optimizer'].param_groups[0]['lr'] > 0}")
        if state.global_step == 2:
            control.should_training_stop = True
        return control

    def on_evaluate(self, args: Anything, state: Anything, control: Anything, metrics: Anything, **_: Anything) -> None:
        self.seen.append(f"evaluated {sorted(metrics)[0]}")


def test_a_callback_for_transformers_steers_our_run(tmp_path: Path) -> None:
    own: Anything = Theirs()
    run = trainer(tmp_path, callbacks=[own], eval_dataset=pairs(4), eval_strategy="epoch")
    assert run.train().global_step == 2
    assert own.seen == ["step 1, rate True", "step 2, rate True", "evaluated epoch"]


def test_early_stopping_of_transformers_ends_our_run(tmp_path: Path) -> None:
    values = [0.3, 0.2, 0.1]
    theirs = transformers.EarlyStoppingCallback(early_stopping_patience=2)
    assert isinstance(theirs, ExportableState)
    run = trainer(
        tmp_path,
        evaluator=lambda *_, **__: {"score": values.pop(0)},
        callbacks=[theirs],
        eval_strategy="steps",
        eval_steps=1,
        metric_for_best_model="score",
        greater_is_better=True,
    )
    assert run.train().global_step == 3


@pytest.mark.parametrize("name", ["PrinterCallback", "ProgressCallback"])
def test_the_reports_of_transformers_can_stand_for_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run = trainer(tmp_path, num_train_epochs=1)
    run.remove_callback(PrinterCallback)
    run.add_callback(getattr(transformers.trainer_callback, name))
    run.train()
    assert capsys.readouterr().out.count("'loss'") == 3


def test_names_are_sorted_into_sections_as_the_peer_does() -> None:
    from transformers.integrations.integration_utils import rewrite_logs

    logs = {"loss": 1, "eval_loss": 2, "test_x_y": 3, "epoch": 4, "evaluation": 5}
    assert by_section(logs) == rewrite_logs(logs)


def test_the_constructors_are_those_of_the_peer() -> None:
    from inspect import signature

    for ours in (EarlyStoppingCallback, ProgressCallback, DefaultFlowCallback, PrinterCallback, TrainerCallback):
        theirs = getattr(transformers.trainer_callback, ours.__name__)
        assert list(signature(ours).parameters) == list(signature(theirs).parameters)
        defaults = [each.default for each in signature(ours).parameters.values()]
        assert defaults == [each.default for each in signature(theirs).parameters.values()]
