"""Rows 57 to 62 of bad_inputs.py: what a run does with folders, checkpoints and disks."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from checkpoints_helpers import Anything, small_run, weights_digest
from training_helpers import pairs, tiny_encoder, trainer

import sparse_encoder
from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.training import SparseEncoderTrainer, TrainerCallback
from sparse_encoder.training.checkpoints.lock import LOCK
from sparse_encoder.training.checkpoints.saving import RunFiles
from sparse_encoder.training.checkpoints.snapshot import data_identity

STATE_FILES = ["optimizer.json", "optimizer.safetensors", "scheduler.json", "run.json", "trainer_state.json"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> SparseEncoderTrainer:
    run = small_run(tmp_path_factory.mktemp("straight"), save_total_limit=None)
    run.train()
    return run


def copied(straight: SparseEncoderTrainer, folder: Path) -> Path:
    shutil.copytree(str(straight.args.output_dir), folder)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_row_57_a_folder_with_another_runs_checkpoints_is_refused(
    straight: SparseEncoderTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copied(straight, tmp_path / "run")
    before = names(folder)
    with pytest.raises(
        CheckpointError, match="holds checkpoints of another run, up to checkpoint-3.*resume_from.*overw"
    ):
        small_run(folder).train()
    assert names(folder) == before
    # resumed from elsewhere: only if those checkpoints are of the same run
    other = small_run(tmp_path / "other", data_seed=5)
    other.train()
    with pytest.raises(CheckpointError, match="field 'data_seed'.*another run"):
        small_run(folder, data_seed=5).train(tmp_path / "other" / "checkpoint-2")
    same = copied(straight, tmp_path / "same")
    small_run(same, seed=99).train(folder / "checkpoint-2")
    assert names(same) == ["checkpoint-2", "checkpoint-3"]
    # overwriting keeps them until there is a checkpoint of the new run
    kept: list[list[str]] = []

    class Look(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            kept.append(names(folder))

    with caplog.at_level(logging.WARNING):
        small_run(folder, overwrite_output_dir=True, data_seed=5, callbacks=[Look]).train()
    assert kept[0] == [LOCK, "checkpoint-1.replaced", "checkpoint-2.replaced", "checkpoint-3.replaced"]
    assert kept[1] == [LOCK, "checkpoint-1"]
    assert names(folder) == ["checkpoint-2", "checkpoint-3"]
    assert "checkpoint-3 is now checkpoint-3.replaced" in caplog.text


ROW_58: list[tuple[dict[str, Anything], str]] = [
    ({"rows": pairs(20)}, "train_dataset"),
    ({"per_device_train_batch_size": 3}, "per_device_train_batch_size"),
    ({"gradient_accumulation_steps": 3}, "gradient_accumulation_steps"),
    ({"data_seed": 9}, "data_seed"),
    ({"learning_rate": 0.5}, "learning_rate"),
]


@pytest.mark.parametrize(("change", "field"), ROW_58, ids=[field for _, field in ROW_58])
def test_row_58_a_changed_setting_is_refused_by_name(
    straight: SparseEncoderTrainer, tmp_path: Path, change: dict[str, Anything], field: str
) -> None:
    checkpoint = Path(str(straight.args.output_dir)) / "checkpoint-2"
    options = {"gradient_accumulation_steps": 2, "max_steps": 3, "warmup_steps": 1, "weight_decay": 0.1, **change}
    options.setdefault("rows", pairs(21))
    with pytest.raises(CheckpointError, match=f"field '{field}'.*so the run would not go on as it was"):
        trainer(tmp_path, tiny_encoder(), **options).train(checkpoint)
    if field != "learning_rate":  # the explicit override is for the data and what decides their order
        trainer(tmp_path, tiny_encoder(), **options, ignore_data_skip=True).train(checkpoint)


def test_row_58_another_seed_code_or_world_is_refused_by_name(
    straight: SparseEncoderTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Path(str(straight.args.output_dir)) / "checkpoint-2"
    run = small_run(tmp_path)
    run.args.seed = 7
    with pytest.raises(CheckpointError, match="field 'seed': seed was 42 and is 7 now"):
        run.train(checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr(sparse_encoder, "__version__", "99.0")
        with pytest.raises(CheckpointError, match="field 'code_version'.*is '99.0' now"):
            small_run(tmp_path).train(checkpoint)
        small_run(tmp_path / "override", ignore_data_skip=True).train(checkpoint)
    run.create_optimizer_and_scheduler(3)
    assert data_identity(run.args, 1, {})["num_processes"] == 1
    with pytest.raises(CheckpointError, match="field 'num_processes': num_processes was 1 and is 2 now"):
        RunFiles(run, {}).resume(checkpoint, data_identity(run.args, 2, {}) | {"seed": 42})


@pytest.mark.parametrize("name", STATE_FILES)
def test_row_59_a_checkpoint_without_a_state_is_refused(
    straight: SparseEncoderTrainer, tmp_path: Path, name: str
) -> None:
    folder = copied(straight, tmp_path / "run")
    (folder / "checkpoint-3" / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: the file is missing.*one before.*checkpoint-2'"):
        small_run(folder).train(folder / "checkpoint-3")


def test_row_59_a_checkpoint_of_a_model_alone_is_refused(tmp_path: Path) -> None:
    small_run(tmp_path, save_only_model=True).train()
    with pytest.raises(CheckpointError, match="there is no run.json.*save_only_model"):
        small_run(tmp_path).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("damage", ["cut", "bit", "missing", "list"])
def test_row_60_a_damaged_checkpoint_gives_way_to_the_one_before(
    straight: SparseEncoderTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    folder = copied(straight, tmp_path / "run")
    path = folder / "checkpoint-3" / ("MANIFEST.json" if damage == "list" else "model.safetensors")
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "bit":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 4]) + content[-8:])
    elif damage == "list":
        path.write_bytes(content.replace(b'"bytes": ', b'"bytes": 1', 1))
    with pytest.raises(CheckpointError, match=r"cannot be resumed from: .*resume_from_checkpoint='.*checkpoint-2'"):
        small_run(folder).train(folder / "checkpoint-3")  # one that is asked for by name is not replaced in silence
    resumed = small_run(folder, seed=99)
    with caplog.at_level(logging.WARNING):
        resumed.train(resume_from_checkpoint=True)
    assert "checkpoint-3 is damaged and is now checkpoint-3.corrupt" in caplog.text
    assert weights_digest(resumed.model) == weights_digest(straight.model)
    assert names(folder) == ["checkpoint-2", "checkpoint-3", "checkpoint-3.corrupt"]


def test_row_61_a_full_disk_keeps_the_last_checkpoint_and_ends_the_run(
    straight: SparseEncoderTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fsync = os.fsync
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 30:  # in the middle of the second checkpoint
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match=r"checkpoint-2: .*could not be saved: No space left.*Make room"):
            small_run(tmp_path / "stop").train()
        assert names(tmp_path / "stop") == ["checkpoint-1"]
        calls.clear()
        with caplog.at_level(logging.WARNING):
            small_run(tmp_path / "warn", on_save_error="warn").train()
    assert names(tmp_path / "warn") == ["checkpoint-1"]
    assert caplog.text.count("the run goes on without this checkpoint") == 2
    for folder in ("stop", "warn"):
        resumed = small_run(tmp_path / folder, seed=99)
        resumed.train(resume_from_checkpoint=True)
        assert weights_digest(resumed.model) == weights_digest(straight.model)


def test_row_61_too_little_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(CheckpointError, match="bytes are to be written and 1000 are free"):
        small_run(tmp_path).train()
    assert names(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_row_62_a_second_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        _train_for_ever(tmp_path)
    while not (tmp_path / "in the run").exists():
        time.sleep(0.02)
    with pytest.raises(CheckpointError, match=rf"another run uses this folder: process {child} on .* since 20"):
        small_run(tmp_path).train()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    (tmp_path / "in the run").unlink()
    assert names(tmp_path) == [LOCK]
    small_run(tmp_path).train()  # the lock of a dead run holds nobody up
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-3"]


def _train_for_ever(folder: Path) -> None:
    class Wait(TrainerCallback):
        def on_train_begin(self, *_: object, **__: object) -> None:
            (folder / "in the run").touch()
            time.sleep(60)

    try:
        small_run(folder, callbacks=[Wait]).train()
    finally:
        os._exit(1)
