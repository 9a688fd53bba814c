from __future__ import annotations

import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sparse_encoder.checkpoint import CheckpointError, processes
from sparse_encoder.checkpoint.processes import is_alive
from sparse_encoder.training.checkpoints import lock
from sparse_encoder.training.checkpoints.lock import LOCK, hold_folder

DEAD_PROCESS = 2**22 + 1  # beyond the largest process number of Linux
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def hold(folder: Path) -> None:
    with hold_folder(folder):
        pass


def holder(folder: Path, then: Callable[[], None]) -> int:
    """Fork a process that holds a folder and then does something; returns its number once it holds."""
    child = os.fork()
    if child == 0:
        with hold_folder(folder):
            then()
            time.sleep(60)
        os._exit(0)
    while not (folder / LOCK).exists() or not (folder / LOCK).read_text():
        time.sleep(0.01)
    return child


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_folder_is_held_by_one_run_and_free_after_it(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with hold_folder(folder):
        told = json.loads((folder / LOCK).read_text())
        assert told["pid"] == os.getpid() and told["host"] == socket.gethostname()
        with pytest.raises(
            CheckpointError, match=rf"another run uses this folder: process {os.getpid()} on .* since 20"
        ):
            hold(folder)
        with pytest.raises(CheckpointError):  # the attempt has not let go of it
            hold(folder)
    assert os.listdir(folder) == []
    hold(folder)


def test_an_error_lets_go(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hold_folder(tmp_path):
        raise KeyError
    assert os.listdir(tmp_path) == []


@needs_fork
def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    child = holder(tmp_path, lambda: None)
    with pytest.raises(CheckpointError, match=f"process {child} on"):
        hold(tmp_path)
    kill(child)
    assert (tmp_path / LOCK).exists()
    hold(tmp_path)
    assert os.listdir(tmp_path) == []


@needs_fork
def test_workers_of_a_killed_run_are_waited_for(tmp_path: Path) -> None:
    def fork_a_worker() -> None:
        if os.fork() == 0:
            time.sleep(1.0)
            os._exit(0)
        (tmp_path / "forked").touch()

    child = holder(tmp_path, fork_a_worker)
    while not (tmp_path / "forked").exists():
        time.sleep(0.01)
    started = time.monotonic()
    kill(child)
    hold(tmp_path)
    assert 0.3 < time.monotonic() - started < 10


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file.run: nothing can be written here: .*Give output_dir"):
        hold(tmp_path / "file" / "run")


@pytest.fixture()
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_lock", lambda descriptor: None)
    monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 0.3)


@pytest.mark.usefixtures("without_locks")
def test_a_file_system_without_locks_goes_by_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with hold_folder(tmp_path), pytest.raises(CheckpointError, match=f"process {os.getpid()} on"):
        hold(tmp_path)
    assert os.listdir(tmp_path) == []
    told = {"pid": DEAD_PROCESS, "host": socket.gethostname(), "since": time.time()}
    (tmp_path / LOCK).write_text(json.dumps(told))
    with caplog.at_level(logging.WARNING), hold_folder(tmp_path):
        assert f"is taken over: its run has ended, process {DEAD_PROCESS}" in caplog.text
    (tmp_path / LOCK).write_text(json.dumps({**told, "host": "elsewhere"}))
    with pytest.raises(CheckpointError, match="process .* on elsewhere .*remove .*run.lock"):
        hold(tmp_path)


@pytest.mark.usefixtures("without_locks")
@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "host": "y", "since": 0}'])
def test_a_lock_that_says_nothing_is_respected(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    with pytest.raises(CheckpointError, match="process unknown"):
        hold(tmp_path)
    assert (tmp_path / LOCK).read_text() == text


def test_who_lives() -> None:
    assert is_alive(os.getpid(), time.time())
    assert not is_alive(DEAD_PROCESS, time.time())
    assert not is_alive(0, time.time())
    if processes._started(os.getpid()) is not None:  # another process of the same number did it
        assert not is_alive(os.getpid(), 1000.0)
        assert abs(processes._started(os.getpid()) - time.time()) < 3600
    assert processes._started(DEAD_PROCESS) is None
