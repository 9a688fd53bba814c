from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from checkpoints_helpers import Anything, small_run, weights_digest
from torch import Tensor

from sparse_encoder.training import TrainerCallback, TrainerControl, TrainerState
from sparse_encoder.training.checkpoints.folders import list_checkpoints
from sparse_encoder.training.checkpoints.signals import StopRequest, stop_on_signals


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_noted_and_ends_the_process_behind_the_work(number: int, code: int) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    worked = []
    with pytest.raises(SystemExit) as ended, stop_on_signals() as stop:
        assert stop.requested is None
        send(number)
        assert stop.requested == number
        worked.append("on")
    assert ended.value.code == code
    assert worked == ["on"]
    assert {each: signal.getsignal(each) for each in before} == before


def test_a_second_signal_ends_at_once() -> None:
    worked = []
    with pytest.raises(SystemExit) as ended, stop_on_signals():
        send(signal.SIGTERM)
        send(signal.SIGINT)
        worked.append("on")
    assert ended.value.code == 130
    assert worked == []


def test_without_a_signal_nothing_happens() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        pass
    assert stop.requested is None
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(KeyError), stop_on_signals():
        send(signal.SIGTERM)
        raise KeyError  # an error is told, whatever else
    assert signal.getsignal(signal.SIGTERM) is before


def test_only_the_main_thread_gets_signals() -> None:
    told: list[str] = []

    def enter() -> None:
        try:
            with stop_on_signals():
                pass
        except ValueError as reason:
            told.append(str(reason))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert "main thread" in told[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_worker_ends_when_it_is_told_to_and_not_by_the_keyboard() -> None:
    with stop_on_signals() as stop:
        child = os.fork()
        if child == 0:
            time.sleep(30)
            time.sleep(30)
            os._exit(7)
        time.sleep(0.1)
        os.kill(child, signal.SIGINT)
        time.sleep(0.1)
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        assert stop.requested is None


class Two:
    """An accelerator of two processes, of which the other was told to end."""

    num_processes, device = 2, torch.device("cpu")

    def gather(self, own: Tensor) -> Tensor:
        return torch.cat([own, torch.tensor([signal.SIGTERM])])


def test_all_processes_of_a_run_agree() -> None:
    stop = StopRequest()
    accelerator: Anything = Two()
    assert stop.agree(accelerator)
    assert stop.requested == signal.SIGTERM
    stop.requested = int(signal.SIGINT)
    assert stop.agree(accelerator) and stop.requested == signal.SIGINT


class Send(TrainerCallback):
    """Send a signal in the middle of the second update."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_substep_end(self, args: Anything, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if state.global_step == 1:
            send(signal.SIGTERM)

    def on_step_end(self, args: Anything, state: TrainerState, control: TrainerControl, **_: object) -> None:
        self.events.append(f"step {state.global_step}")


@pytest.mark.parametrize("strategy", ["no", "steps", "epoch"])
def test_a_run_saves_after_its_update_and_goes_on_to_the_same_bits(
    tmp_path: Path, strategy: str, caplog: pytest.LogCaptureFixture
) -> None:
    straight = small_run(tmp_path / "straight", max_steps=6)  # three updates an epoch
    straight.train()
    options = {"max_steps": 6, "save_strategy": strategy, "save_steps": 4, "save_on_signal": True}
    told = small_run(tmp_path / "told", callbacks=[sender := Send()], **options)
    with caplog.at_level(logging.WARNING), pytest.raises(SystemExit) as ended:
        told.train()
    assert ended.value.code == 143
    assert "SIGTERM" in caplog.text
    assert sender.events == ["step 1", "step 2"]
    assert [path.name for path in list_checkpoints(tmp_path / "told")] == ["checkpoint-2"]
    resumed = small_run(tmp_path / "told", seed=99, **options)
    resumed.train(resume_from_checkpoint=True)
    assert weights_digest(resumed.model) == weights_digest(straight.model)


def test_a_library_does_not_own_the_signals_of_its_process(tmp_path: Path) -> None:
    seen = []

    class Look(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    small_run(tmp_path, callbacks=[Look], max_steps=1).train()
    assert seen == [before]
