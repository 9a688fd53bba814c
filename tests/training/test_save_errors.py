"""What a disk refuses while a checkpoint is saved: the last one is kept, the half one removed, and the error tells."""

from __future__ import annotations

import errno
import logging
import os
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from checkpoints_helpers import Anything, Faults, small_run

from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.training.checkpoints.folders import list_checkpoints, sweep
from sparse_encoder.training.checkpoints.manifest import check_manifest
from sparse_encoder.training.checkpoints.saving import RunFiles
from sparse_encoder.training.checkpoints.snapshot import Progress

ERRORS = [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES]
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks up open files in /proc")


def files_of(folder: Path, **options: Anything) -> RunFiles:
    """Return the files of a run after its first update, which has a checkpoint."""
    run = small_run(folder, **{"seed": 3, **options})
    run.create_optimizer_and_scheduler(3)
    for parameter in run.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert run.optimizer is not None
    run.optimizer.step()
    files = RunFiles(run, {"seed": 3})
    run.state.global_step = 1
    assert files.save(Progress())
    run.state.global_step = 2
    return files


def count(files: RunFiles, mode: str) -> int:
    """Return the number of file operations of the second checkpoint, which is removed again."""
    with Faults(files.output_dir, 0, mode).armed() as faults:
        files.save(Progress())
    for path in files.output_dir.glob("checkpoint-2*"):
        shutil.rmtree(path)
    return len(faults.calls)


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("mode", ["error", "full"])
def test_an_error_at_any_operation_keeps_the_last_checkpoint(tmp_path: Path, mode: str, code: int) -> None:
    files = files_of(tmp_path / "out")
    calls = count(files, mode)
    assert calls >= 50
    refused = 0
    for at in range(1, calls + 1):
        with Faults(files.output_dir, at, mode, code).armed() as faults:
            try:
                files.save(Progress())
            except CheckpointError as reason:
                refused += 1
                assert os.strerror(code) in str(reason) and "checkpoint-2" in str(reason) and reason.hint
        check_manifest(files.output_dir / "checkpoint-1")
        left = sorted(os.listdir(files.output_dir))
        assert not [name for name in left if name.startswith(".tmp-")], faults.calls[at - 1]
        sweep(files.output_dir)
        names = [path.name for path in list_checkpoints(files.output_dir)]
        assert names in (["checkpoint-1"], ["checkpoint-1", "checkpoint-2"]), names
        for path in list_checkpoints(files.output_dir)[1:]:
            check_manifest(path)
            shutil.rmtree(path)
    assert refused > 30


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["error", "full"])
def test_an_error_while_a_checkpoint_is_replaced_keeps_one_of_both(tmp_path: Path, mode: str) -> None:
    files = files_of(tmp_path / "out")
    files.save(Progress())
    with Faults(files.output_dir, 0, mode).armed() as faults:
        files.save(Progress())
    for at in range(1, len(faults.calls) + 1):
        with Faults(files.output_dir, at, mode, errno.EIO).armed():
            try:
                files.save(Progress())
            except CheckpointError as reason:
                assert "Input/output error" in str(reason)
        sweep(files.output_dir)
        assert [path.name for path in list_checkpoints(files.output_dir)] == ["checkpoint-1", "checkpoint-2"]
        for path in list_checkpoints(files.output_dir):
            check_manifest(path)


def test_a_file_that_may_not_grow_is_told(tmp_path: Path) -> None:
    files = files_of(tmp_path / "out")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(CheckpointError, match="File too large"):
            files.save(Progress())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(files.output_dir) == ["checkpoint-1"]


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=size))


def test_what_will_not_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(tmp_path / "out")
    size = sum(path.stat().st_size for path in (files.output_dir / "checkpoint-1").rglob("*"))
    free(monkeypatch, int(1.2 * size) - 2)
    with pytest.raises(CheckpointError, match=rf"checkpoint-2.*about {size} bytes are to be written and \d+ are free"):
        files.save(Progress())
    assert os.listdir(files.output_dir) == ["checkpoint-1"]
    free(monkeypatch, int(1.2 * size) + 2)
    assert files.save(Progress())


def test_the_first_checkpoint_is_measured_by_its_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_run(tmp_path / "out")
    run.create_optimizer_and_scheduler(3)
    weights = sum(each.numel() * each.element_size() for each in run.model.state_dict().values())
    free(monkeypatch, weights)
    with pytest.raises(CheckpointError, match=f"about {weights} bytes"):
        RunFiles(run, {}).save(Progress())
    assert not (tmp_path / "out").exists()


def test_a_run_may_go_on_without_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = files_of(tmp_path / "out", on_save_error="warn")
    state = files.trainer.state
    state.best_global_step, state.best_model_checkpoint = 2, "checkpoint-1"
    free(monkeypatch, 100)
    with caplog.at_level(logging.WARNING):
        assert not files.save(Progress())
    assert "the run goes on without this checkpoint" in caplog.text
    assert state.best_model_checkpoint == "checkpoint-1"
    free(monkeypatch, 10**9)
    assert files.save(Progress())
    assert str(state.best_model_checkpoint).endswith("checkpoint-2")


def test_an_old_checkpoint_that_cannot_be_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = files_of(tmp_path / "out", save_total_limit=1)
    rename = os.rename

    def refuse(source: Path, target: Path) -> None:
        if Path(source).name == "checkpoint-1":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(source))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with caplog.at_level(logging.WARNING):
        assert files.save(Progress())
    assert "could not be removed" in caplog.text
    assert sorted(os.listdir(files.output_dir)) == ["checkpoint-1", "checkpoint-2"]
