"""Processes and threads at one folder: who waits, who does not, and what is read meanwhile."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sparse_encoder.checkpoint import CheckpointError, folder_lock, read_settled, staged_folder
from sparse_encoder.checkpoint.atomic import write_text

lock_module = sys.modules["sparse_encoder.checkpoint.folder_lock"]


def held_by_another(folder: Path, *, exclusive: bool) -> subprocess.Popen[str]:
    code = (
        "import pathlib, sys; from sparse_encoder.checkpoint.folder_lock import folder_lock\n"
        f"with folder_lock(pathlib.Path(sys.argv[1]), exclusive={exclusive}):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize(("theirs", "ours", "waits"), [(True, True, True), (True, False, True), (False, False, False)])
def test_who_changes_a_folder_is_alone_and_who_looks_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: bool, ours: bool, waits: bool
) -> None:
    monkeypatch.setattr(lock_module, "_PATIENCE_SECONDS", 0.05)
    process = held_by_another(tmp_path, exclusive=theirs)
    try:
        if waits:
            with (
                pytest.raises(TimeoutError, match="has been held by another process"),
                folder_lock(tmp_path, exclusive=ours),
            ):
                pytest.fail("it was held")
        else:
            with folder_lock(tmp_path, exclusive=ours):
                pass
    finally:
        process.kill()
        process.communicate()
    with folder_lock(tmp_path, exclusive=True):  # a lock ends with its process
        pass
    assert os.listdir(tmp_path) == []


def test_a_saver_waits_for_the_one_before(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    saved = threading.Event()

    def save() -> None:
        with staged_folder(target) as stage:
            write_text(stage / "a", "1")
        saved.set()

    with folder_lock(target, exclusive=True):
        thread = threading.Thread(target=save)
        thread.start()
        assert not saved.wait(0.2)
        assert os.listdir(target) == []
    thread.join(10)
    assert saved.is_set() and os.listdir(target) == ["a"]


def test_the_folder_that_is_there_at_last_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a folder that is replaced meanwhile would hold one that nobody sees."""
    target = tmp_path / "model"
    target.mkdir()
    lock, held = lock_module._lock, []

    def replaced_while_waiting(descriptor: int, *, exclusive: bool, folder: Path, deadline: float) -> bool:
        held.append(os.fstat(descriptor).st_ino)
        result: bool = lock(descriptor, exclusive=exclusive, folder=folder, deadline=deadline)
        if len(held) == 1:
            target.rename(tmp_path / "old")
            target.mkdir()
        return result

    monkeypatch.setattr(lock_module, "_lock", replaced_while_waiting)
    with folder_lock(target, exclusive=True):
        assert len(held) == 2 and held[1] == target.stat().st_ino


def test_where_folders_cannot_be_locked_saving_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock_module.fcntl, "flock", refuse)
    (tmp_path / "model").mkdir()
    with staged_folder(tmp_path / "model") as stage:
        write_text(stage / "a", "1")
    assert os.listdir(tmp_path / "model") == ["a"]


def test_another_fault_of_the_lock_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(lock_module.fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output error"), folder_lock(tmp_path, exclusive=True):
        pytest.fail("it cannot be had")
    with pytest.raises(FileNotFoundError), folder_lock(tmp_path / "missing", exclusive=True):
        pytest.fail("it is not there")


def test_what_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    write_text(tmp_path / "config.json", "0")
    write_text(tmp_path / "model.safetensors", "0")
    reads = 0

    def read() -> list[str]:
        nonlocal reads
        reads += 1
        config = (tmp_path / "config.json").read_text()
        if reads < 3:
            write_text(tmp_path / "config.json", str(reads))
            write_text(tmp_path / "model.safetensors", str(reads))
        return [config, (tmp_path / "model.safetensors").read_text()]

    assert read_settled(tmp_path, read) == ["2", "2"]
    assert reads == 3


def test_an_adapter_that_changes_is_read_again(tmp_path: Path) -> None:
    contents = iter(["2", "3"])

    def read() -> str:
        found = (tmp_path / "adapter_config.json").read_text()
        if found == "1":
            write_text(tmp_path / "adapter_config.json", next(contents))
        return found

    write_text(tmp_path / "adapter_config.json", "1")
    assert read_settled(tmp_path, read) == "2"


def test_an_error_of_a_reader_is_raised_unless_the_folder_has_changed(tmp_path: Path) -> None:
    write_text(tmp_path / "config.json", "0")
    reads: list[int] = []

    def read() -> str:
        reads.append(1)
        if len(reads) == 1:
            write_text(tmp_path / "model-00001-of-00002.safetensors", "")
        if len(reads) < 3:
            raise CheckpointError(f"fault {len(reads)}")
        return "read"

    with pytest.raises(CheckpointError, match="fault 2"):
        read_settled(tmp_path, read)
    assert read_settled(tmp_path, read) == "read"
    with pytest.raises(FileNotFoundError):
        read_settled(tmp_path / "missing", lambda: (tmp_path / "missing" / "config.json").read_text())


def test_other_files_may_change(tmp_path: Path) -> None:
    reads: list[int] = []

    def read() -> None:
        reads.append(1)
        write_text(tmp_path / "log.txt", str(len(reads)))

    read_settled(tmp_path, read)
    assert len(reads) == 1


def test_a_folder_that_never_settles_is_an_error(tmp_path: Path) -> None:
    numbers = iter(range(100))
    with pytest.raises(CheckpointError, match="changed every time it was read, 10 times. Stop the processes"):
        read_settled(tmp_path, lambda: write_text(tmp_path / "config.json", str(next(numbers))))
