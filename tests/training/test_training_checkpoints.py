from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.training.checkpoints import folders
from sparse_encoder.training.checkpoints.folders import (
    find_checkpoint,
    list_checkpoints,
    new_checkpoint,
    rotate_checkpoints,
)
from sparse_encoder.training.checkpoints.manifest import check_manifest, write_manifest
from sparse_encoder.training.checkpoints.optimizer_state import read_optimizer, write_optimizer

DEAD_PROCESS = 2**22 + 1  # beyond the largest process number of Linux


def make(target: Path, text: str = "weights") -> Path:
    with new_checkpoint(target) as folder:
        (folder / "part").mkdir()
        (folder / "part" / "file").write_text(text)
        (folder / "state").write_text("state")
    return target


def test_a_checkpoint_appears_with_a_list_of_its_files(tmp_path: Path) -> None:
    target = make(tmp_path / "run" / "checkpoint-3")
    assert check_manifest(target) == {"part/file", "state"}
    assert [path.name for path in target.parent.iterdir()] == ["checkpoint-3"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    target = make(tmp_path / "checkpoint-3", "old")

    def fail() -> None:
        with new_checkpoint(target) as folder:
            (folder / "state").write_text("half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        fail()
    check_manifest(target)
    assert (target / "part" / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["checkpoint-3"]


def test_a_failure_at_the_rename_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = make(tmp_path / "checkpoint-3", "old")
    rename = os.rename

    def refuse(source: Path, place: Path) -> None:
        if Path(source).name.startswith(".tmp-"):
            raise OSError("the disk is gone")
        rename(source, place)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="the disk is gone"):
        make(target, "new")
    assert (target / "part" / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["checkpoint-3"]


def test_an_older_folder_of_the_same_name_gives_way_whole(tmp_path: Path) -> None:
    target = make(tmp_path / "checkpoint-3", "old")
    (target / "stray").write_text("of the old one")
    make(target, "new")
    assert (target / "part" / "file").read_text() == "new"
    assert not (target / "stray").exists()
    assert os.listdir(tmp_path) == ["checkpoint-3"]


def test_a_folder_of_another_name_is_replaced_too(tmp_path: Path) -> None:
    target = make(tmp_path / "last-checkpoint", "old")
    make(target, "new")
    assert (target / "part" / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["last-checkpoint"]


DAMAGES = ["part/file", "state", "MANIFEST.json"]


@pytest.mark.parametrize("name", DAMAGES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    target = make(tmp_path / "checkpoint-3")
    (target / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        check_manifest(target)


@pytest.mark.parametrize("name", DAMAGES)
def test_an_altered_file_is_named(tmp_path: Path, name: str) -> None:
    target = make(tmp_path / "checkpoint-3")
    data = (target / name).read_bytes()
    for place in range(0, len(data), max(1, len(data) // 40)):  # a bit each
        flipped = bytes([*data[:place], data[place] ^ 1, *data[place + 1 :]])
        if name == "MANIFEST.json" and data[place : place + 1].isspace() and json_equal(data, flipped):
            continue
        (target / name).write_bytes(flipped)
        with pytest.raises(CheckpointError, match=name.replace("MANIFEST.json", "MANIFEST|missing|altered|relative")):
            check_manifest(target)
    (target / name).write_bytes(data[:-1] if name != "MANIFEST.json" else data[:-3])
    with pytest.raises(CheckpointError, match=name):
        check_manifest(target)


def json_equal(left: bytes, right: bytes) -> bool:
    try:
        return bool(json.loads(left) == json.loads(right))
    except ValueError:
        return False


def test_a_list_that_was_rewritten_is_refused(tmp_path: Path) -> None:
    target = make(tmp_path / "checkpoint-3")
    listed = json.loads((target / "MANIFEST.json").read_text())
    del listed["files"]["state"]
    (target / "MANIFEST.json").write_text(json.dumps(listed))
    with pytest.raises(CheckpointError, match="the list was altered"):
        check_manifest(target)


def test_a_list_of_another_format_is_refused(tmp_path: Path) -> None:
    target = make(tmp_path / "checkpoint-3")
    listed = json.loads((target / "MANIFEST.json").read_text())
    (target / "MANIFEST.json").write_text(json.dumps({**listed, "format": 2}))
    with pytest.raises(CheckpointError, match="format must be 1, got 2"):
        check_manifest(target)


def test_a_list_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    target = tmp_path / "checkpoint-3"
    target.mkdir()
    os.symlink(tmp_path / "outside", target / "state")
    write_manifest(target)
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        check_manifest(target)


def test_checkpoints_are_listed_by_number(tmp_path: Path) -> None:
    for step in (100, 9, 20):
        make(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-7").write_text("a file")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-20", "checkpoint-100"]
    assert list_checkpoints(tmp_path / "nowhere") == []


def test_the_last_whole_checkpoint_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (2, 10, 6):
        make(tmp_path / f"checkpoint-{step}")
    assert find_checkpoint(tmp_path).name == "checkpoint-10"
    (tmp_path / "checkpoint-10" / "state").write_text("stats")
    with caplog.at_level(logging.WARNING):
        assert find_checkpoint(tmp_path).name == "checkpoint-6"
    assert "checkpoint-10 is damaged and is now checkpoint-10.corrupt" in caplog.text
    assert "state" in caplog.text
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-10.corrupt", "checkpoint-2", "checkpoint-6"]
    (tmp_path / "checkpoint-6" / "state").unlink()
    (tmp_path / "checkpoint-6.corrupt").mkdir()  # of another time
    assert find_checkpoint(tmp_path).name == "checkpoint-2"
    assert (tmp_path / "checkpoint-6.corrupt-1" / "part").is_dir()


def test_no_whole_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        find_checkpoint(tmp_path)
    for step in (2, 4):
        (make(tmp_path / f"checkpoint-{step}") / "state").unlink()
    with pytest.raises(CheckpointError, match=r"checkpoint-4.state"):
        find_checkpoint(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-2", "checkpoint-4"]


ROTATIONS = [  # steps, newest, best, limit, kept
    ([2, 4, 6], 6, None, 2, [4, 6]),
    ([2, 4, 6], 6, 2, 2, [2, 6]),
    ([2, 4, 6], 6, 2, 1, [2, 6]),
    ([2, 4, 6], 6, 6, 1, [6]),
    ([2, 4, 6], 6, None, 9, [2, 4, 6]),
    ([9, 10, 100], 100, 9, 2, [9, 100]),
    ([2, 4, 50, 60], 4, None, 2, [2, 4]),  # 50 and 60 are of an earlier run
    ([2], 2, 1, 1, [2]),  # the best is gone
]


@pytest.mark.parametrize(("steps", "newest", "best", "limit", "kept"), ROTATIONS)
def test_rotation_keeps_the_newest_and_the_best(
    tmp_path: Path, steps: list[int], newest: int, best: int | None, limit: int, kept: list[int]
) -> None:
    for step in steps:
        make(tmp_path / f"checkpoint-{step}")
    best_path = None if best is None else tmp_path / f"checkpoint-{best}"
    rotate_checkpoints(tmp_path / f"checkpoint-{newest}", best_path, limit)
    assert sorted(os.listdir(tmp_path)) == sorted(f"checkpoint-{step}" for step in kept)


def test_what_killed_processes_left_is_swept_away(tmp_path: Path) -> None:
    for name in (f".tmp-{DEAD_PROCESS}-abc123", f".tmp-{os.getpid()}-abc123", ".trash-checkpoint-3-abc", "runs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("text")
    folders.sweep(tmp_path)
    folders.sweep(tmp_path / "nowhere")
    assert sorted(os.listdir(tmp_path)) == [f".tmp-{os.getpid()}-abc123", "runs"]


def test_leftovers_of_an_earlier_process_of_the_same_number_are_swept_away(tmp_path: Path) -> None:
    left = tmp_path / f".tmp-{os.getpid()}-abc123"
    left.mkdir()
    os.utime(left, (1000.0, 1000.0))
    folders.sweep(tmp_path)
    assert os.listdir(tmp_path) == ([] if Path("/proc/self/stat").exists() else [left.name])


def place(target: Path, name: str, text: str) -> None:
    """Make a checkpoint under another name, as a killed process may have left it."""
    make(target.with_name("checkpoint-99"), text).rename(target.with_name(name))


def text_of(target: Path) -> str:
    return (target / "part" / "file").read_text()


def test_a_newer_checkpoint_of_the_same_number_takes_its_place(tmp_path: Path) -> None:
    target = make(tmp_path / "checkpoint-3", "old")
    place(target, "checkpoint-3.1", "new")
    place(target, "checkpoint-3.2", "newer")
    place(target, "checkpoint-5.1", "alone")
    assert find_checkpoint(tmp_path).name == "checkpoint-5"
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-3", "checkpoint-5"]
    assert text_of(target) == "newer"


def test_a_damaged_newer_checkpoint_does_not_take_its_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = make(tmp_path / "checkpoint-3", "old")
    place(target, "checkpoint-3.1", "new")
    (tmp_path / "checkpoint-3.1" / "state").write_text("stats")
    with caplog.at_level(logging.WARNING):
        assert find_checkpoint(tmp_path) == target
    assert "checkpoint-3.1 does not take the place of checkpoint-3" in caplog.text
    assert text_of(target) == "old"
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-3", "checkpoint-3.1.corrupt"]


def test_a_checkpoint_by_name_offers_the_one_before(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        make(tmp_path / f"checkpoint-{step}")
    folders.check_checkpoint(tmp_path / "checkpoint-6")
    (tmp_path / "checkpoint-6" / "state").unlink()
    (tmp_path / "checkpoint-4" / "state").write_text("x")
    with pytest.raises(CheckpointError, match=r"state: the file is missing.*resume_from_checkpoint='.*checkpoint-2'"):
        folders.check_checkpoint(tmp_path / "checkpoint-6")
    (tmp_path / "checkpoint-2" / "state").write_text("x")
    for name in ("checkpoint-2", "moved"):
        if name == "moved":
            (tmp_path / "checkpoint-2").rename(tmp_path / name)
        with pytest.raises(CheckpointError, match="state") as refused:
            folders.check_checkpoint(tmp_path / name)
        assert "resume_from_checkpoint" not in str(refused.value)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        folders.check_checkpoint(tmp_path / "nowhere")


def test_rotation_removes_nothing_for_a_checkpoint_that_is_not_whole(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        make(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-6" / "state").write_text("longer than before")
    with pytest.raises(CheckpointError, match="state"):
        rotate_checkpoints(tmp_path / "checkpoint-6", None, 1)
    assert len(list_checkpoints(tmp_path)) == 3


def test_replaced_checkpoints_are_kept_until_they_are_removed(tmp_path: Path) -> None:
    for step in (2, 4):
        make(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-2.replaced").mkdir()  # of another time
    folders.replace_checkpoints(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-2.replaced", "checkpoint-2.replaced-1", "checkpoint-4.replaced"]
    assert list_checkpoints(tmp_path) == []
    (tmp_path / "mine.replaced").mkdir()
    make(tmp_path / "checkpoint-1")
    folders.sweep(tmp_path)
    folders.remove_replaced(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-1", "mine.replaced"]


class Stepped:
    """An optimizer with a schedule after three updates, and its parameters' names."""

    def __init__(self, kind: str, *, steps: int = 3) -> None:
        torch.manual_seed(1)
        self.parameters = [nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2, 5))]
        kinds = {
            "fused": lambda: torch.optim.AdamW(self.parameters, lr=0.1, fused=True),
            "amsgrad": lambda: torch.optim.AdamW(self.parameters, lr=0.1, amsgrad=True),
            "sgd": lambda: torch.optim.SGD(self.parameters, lr=0.1),
            "momentum": lambda: torch.optim.SGD(self.parameters, lr=0.1, momentum=0.9),
        }
        self.optimizer = kinds[kind]()
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 / (step + 1))
        for step in range(steps):
            self.update(step)

    def update(self, step: int) -> None:
        for parameter in self.parameters:
            parameter.grad = torch.full_like(parameter, 0.1 * (step + 1))
        self.optimizer.step()
        self.scheduler.step()


@pytest.mark.parametrize("kind", ["fused", "amsgrad", "sgd", "momentum"])
def test_an_optimizer_goes_on_from_its_files_to_the_same_bits(tmp_path: Path, kind: str) -> None:
    straight, resumed = Stepped(kind), Stepped(kind, steps=0)
    write_optimizer(tmp_path, straight.optimizer, straight.scheduler, ["a", "b"])
    assert not list(tmp_path.glob("*.pt"))
    for ours, theirs in zip(resumed.parameters, straight.parameters, strict=True):
        ours.data.copy_(theirs.data)
    read_optimizer(tmp_path, resumed.optimizer, resumed.scheduler, ["a", "b"])
    assert resumed.scheduler.get_last_lr() == straight.scheduler.get_last_lr()
    for step in (3, 4):
        straight.update(step)
        resumed.update(step)
    for ours, theirs in zip(resumed.parameters, straight.parameters, strict=True):
        assert torch.equal(ours, theirs)


def test_other_parameters_are_refused_by_name(tmp_path: Path) -> None:
    stepped = Stepped("fused")
    write_optimizer(tmp_path, stepped.optimizer, stepped.scheduler, ["a", "b"])
    with pytest.raises(CheckpointError, match=r"optimizer.json.*\['b', 'c'\]"):
        read_optimizer(tmp_path, stepped.optimizer, stepped.scheduler, ["a", "c"])


def test_a_state_that_json_cannot_hold_is_refused_by_name(tmp_path: Path) -> None:
    stepped = Stepped("fused")
    stepped.optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
    with pytest.raises(TypeError, match="optimizer's state cannot be saved: 'groups'"):
        write_optimizer(tmp_path, stepped.optimizer, stepped.scheduler, ["a", "b"])
