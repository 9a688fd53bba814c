"""What a run changes for its own time is undone when an error or a signal ends it."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_helpers import Anything, pairs, splade_loss, tiny_encoder, trainer

from sparse_encoder.training import CallbackHandler, ProgressCallback, TrainerCallback
from sparse_encoder.training.events.reporting import reporting_callbacks

FULL = {"document_regularizer_weight": 3e-3, "query_regularizer_weight": 5e-3}


class Break(TrainerCallback):
    """End a run after its second update."""

    def __init__(self, reason: BaseException) -> None:
        self.reason = reason

    def on_step_end(self, *arguments: Anything, **_: object) -> None:
        if arguments[1].global_step == 2:
            raise self.reason


@pytest.mark.parametrize("reason", [RuntimeError("broken"), KeyboardInterrupt()])
def test_an_ended_run_leaves_loss_and_model_as_they_were(tmp_path: Path, reason: BaseException) -> None:
    model = tiny_encoder()
    loss = splade_loss(model, **FULL)
    given = trainer(tmp_path, model, rows=pairs(36), loss=loss, max_steps=9, callbacks=[Break(reason)])
    with pytest.raises(type(reason)):
        given.train()
    assert loss.weights_in_use() == FULL
    assert len(model._forward_hooks) == len(loss._forward_pre_hooks) == 0
    again = trainer(tmp_path, model, rows=pairs(36), loss=loss, max_steps=9)
    again.train()
    rows = [row for row in again.state.log_history if "document_regularizer_loss" in row]
    assert rows[0]["document_regularizer_loss"] == 0  # they rise again
    assert rows[-1]["document_regularizer_loss"] > 1e-4
    assert loss.weights_in_use() == FULL


def test_bars_of_an_ended_run_are_closed(tmp_path: Path) -> None:
    given = trainer(tmp_path, max_steps=4, disable_tqdm=False, callbacks=[Break(RuntimeError("broken"))])
    with pytest.raises(RuntimeError, match="broken"):
        given.train()
    bar = given.pop_callback(ProgressCallback)
    assert isinstance(bar, ProgressCallback)
    assert bar.training_bar is None


@pytest.mark.parametrize(("name", "attribute"), [("tensorboard", "tb_writer"), ("codecarbon", "tracker")])
def test_trackers_of_an_ended_run_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, attribute: str
) -> None:
    ended: list[str] = []

    class Tracker:
        def __getattr__(self, called: str) -> Anything:
            return lambda *_, **__: ended.append(called)

    module = type("Module", (), {"SummaryWriter": lambda **_: Tracker(), "EmissionsTracker": lambda **_: Tracker()})
    monkeypatch.setattr(f"sparse_encoder.training.events.{name}.require_tracker", lambda *_: module)
    (callback,) = reporting_callbacks([name])
    with pytest.raises(RuntimeError, match="broken"):
        trainer(tmp_path, max_steps=4, callbacks=[callback, Break(RuntimeError("broken"))]).train()
    assert ended[-1] in ("close", "stop")
    assert getattr(callback, attribute) is None


def test_all_callbacks_are_released_though_one_fails() -> None:
    released: list[str] = []

    class Mine(TrainerCallback):
        def __init__(self, name: str) -> None:
            self.name = name

        def release(self) -> None:
            released.append(self.name)
            if self.name == "b":
                raise OSError("cannot be closed")

    with pytest.raises(OSError, match="cannot be closed"):
        CallbackHandler([Mine(name) for name in "abc"], {}).release()
    assert sorted(released) == ["a", "b", "c"]
