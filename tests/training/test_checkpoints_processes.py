"""Checkpoints of a run in two processes: what the first one meets, both hear of."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from checkpoints_helpers import Anything, small_run, weights_digest
from distributed_helpers import in_processes

from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.training import SparseEncoderTrainer, TrainerCallback, TrainerState
from sparse_encoder.training.checkpoints.folders import list_checkpoints

Outcome = dict[str, Anything]


def told(run: SparseEncoderTrainer, resume: Anything = None) -> str:
    """Return the error of a run, the same in both processes but for nothing."""
    try:
        run.train(resume_from_checkpoint=resume)
    except (CheckpointError, ValueError, SystemExit) as reason:
        return f"{type(reason).__name__} {reason}"
    return "none"


def without_room(run: SparseEncoderTrainer) -> str:
    """Train while the first process finds no room."""
    usage = shutil.disk_usage
    if run.is_world_process_zero():
        shutil.disk_usage = lambda place: SimpleNamespace(free=1000)  # type: ignore[assignment]
    try:
        return told(run)
    finally:
        shutil.disk_usage = usage


class TellTheSecond(TrainerCallback):
    """Send the second process a signal in the middle of the second update."""

    def on_substep_end(self, args: Anything, state: TrainerState, control: Anything, **_: object) -> None:
        if state.global_step == 1 and not state.is_world_process_zero:
            os.kill(os.getpid(), signal.SIGTERM)


def work(rank: int, folder: str) -> Outcome:
    place = Path(folder)
    outcome: Outcome = {}
    straight = small_run(place / "straight")
    assert straight.accelerator.num_processes == 2
    straight.train()
    outcome["straight"] = weights_digest(straight.model)
    outcome["again"] = told(small_run(place / "straight"))
    outcome["nothing"] = told(small_run(place / "empty"), True)
    outcome["stop"] = without_room(small_run(place / "stop"))
    warned = small_run(place / "warn", on_save_error="warn")
    outcome["warn"] = without_room(warned)
    outcome["warned"] = weights_digest(warned.model)
    signalled = small_run(place / "signal", callbacks=[TellTheSecond], save_on_signal=True, save_strategy="no")
    outcome["signal"] = told(signalled)
    outcome["saved"] = [path.name for path in list_checkpoints(place / "signal")]
    if rank == 0:  # what comes later is damaged
        shutil.copytree(place / "signal" / "checkpoint-2", place / "signal" / "checkpoint-3")
        (place / "signal" / "checkpoint-3" / "model.safetensors").unlink()
    straight.accelerator.wait_for_everyone()
    resumed = small_run(place / "signal", seed=99, save_strategy="no")
    outcome["resume"] = told(resumed, True)
    outcome["resumed"] = weights_digest(resumed.model)
    outcome["left"] = sorted(os.listdir(place / "signal"))
    return outcome


@pytest.mark.slow
def test_both_processes_hear_what_the_first_one_meets(tmp_path: Path) -> None:
    first, second = in_processes(work, ranks=2, folder=tmp_path)
    assert first.pop("left") == ["checkpoint-2", "checkpoint-3.corrupt"]
    assert second.pop("left")[-2:] == ["checkpoint-2", "checkpoint-3.corrupt"]  # the lock may be about to go
    assert first == second
    assert "holds checkpoints of another run" in first["again"]
    assert first["nothing"].startswith("ValueError resume_from_checkpoint=True, but there is no checkpoint")
    assert first["stop"].startswith("CheckpointError") and "1000 are free" in first["stop"]
    assert first["warn"] == "none" and first["warned"] == first["straight"]
    assert first["signal"] == "SystemExit 143"
    assert first["saved"] == ["checkpoint-2"]
    assert first["resume"] == "none" and first["resumed"] == first["straight"]
