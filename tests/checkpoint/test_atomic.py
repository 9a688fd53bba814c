from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_helpers import tree_of

from sparse_encoder.checkpoint import atomic
from sparse_encoder.checkpoint.atomic import staged_folder, write_bytes, write_json, write_text
from sparse_encoder.checkpoint.json_files import read_json


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_get_the_mode_the_umask_asks_for(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "a", b"x")
        with staged_folder(tmp_path / "folder") as stage:
            write_bytes(stage / "b", b"y")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "folder" / "b").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask


def test_json_is_written_as_it_is_read(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, True], "a": "é\n"}
    write_json(tmp_path / "x.json", value, indent=4)
    assert read_json(tmp_path / "x.json") == value
    assert (tmp_path / "x.json").read_text(encoding="utf-8").startswith('{\n    "b": [')
    write_json(tmp_path / "x.json", value, sort_keys=True)
    assert list(read_json(tmp_path / "x.json")) == ["a", "b"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(read_json(tmp_path / "x.json")) == ["a", "b"]
    assert os.listdir(tmp_path) == ["x.json"]


def test_line_ends_are_kept(tmp_path: Path) -> None:
    write_text(tmp_path / "t", "a\r\nb\nü")
    assert (tmp_path / "t").read_bytes() == b"a\r\nb\n\xc3\xbc"


def test_a_link_is_replaced_and_what_it_leads_to_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("shared by others")
    (tmp_path / "file").symlink_to("blob")
    write_text(tmp_path / "file", "mine")
    assert (tmp_path / "blob").read_text() == "shared by others"
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "file").is_symlink()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    write_text(tmp_path / "a", "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "a", "new")
    assert tree_of(tmp_path) == {"a": b"old"}


def test_a_new_folder_appears_by_one_rename(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "model"
    with staged_folder(target) as stage:
        assert not target.exists()
        assert stage.parent == target.parent
        (stage / "sub").mkdir()
        (stage / "sub" / "x").write_text("1")
        (stage / "y").write_text("2")
        assert not target.exists()
    assert tree_of(tmp_path) == {"a/b/model/sub/x": b"1", "a/b/model/y": b"2"}
    assert os.listdir(target.parent) == ["model"]


def test_files_move_into_a_folder_that_exists(tmp_path: Path) -> None:
    target = tmp_path / "model"
    (target / "sub").mkdir(parents=True)
    for name in ("keep", "sub/keep", "y"):
        (target / name).write_text("old")
    with staged_folder(target) as stage:
        (stage / "sub" / "deep").mkdir(parents=True)
        for name in ("y", "sub/x", "sub/deep/z"):
            (stage / name).write_text("new")
    assert tree_of(target) == {
        "keep": b"old",
        "sub/keep": b"old",
        "y": b"new",
        "sub/x": b"new",
        "sub/deep/z": b"new",
    }
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("exists", [True, False])
def test_an_exception_leaves_the_target_as_it_was(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "parent" / "model"
    if exists:
        target.mkdir(parents=True)
        (target / "a").write_text("old")

    def fail() -> None:
        with staged_folder(target) as stage:
            (stage / "a").write_text("new")
            (stage / "b").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert tree_of(tmp_path) == ({"parent/model/a": b"old"} if exists else {})
    assert os.listdir(tmp_path) == (["parent"] if exists else [])
    assert not exists or os.listdir(tmp_path / "parent") == ["model"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_kill_before_the_end_leaves_the_target_as_it_was(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "model"
    if exists:
        target.mkdir()
        (target / "a").write_text("old")
    code = (
        "import os, pathlib, sys; from sparse_encoder.checkpoint.atomic import staged_folder\n"
        "with staged_folder(pathlib.Path(sys.argv[1])) as stage:\n"
        "    (stage / 'a').write_text('new'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)], cwd=Path.cwd(), check=False).returncode == -9
    assert target.exists() == exists
    assert not exists or tree_of(target) == {"a": b"old"}


def test_what_is_a_file_cannot_become_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("file")
    with pytest.raises(FileExistsError, match="is to be a folder and is a file"), staged_folder(tmp_path / "model"):
        pytest.fail("there is nothing to fill")
    assert tree_of(tmp_path) == {"model": b"file"}


def test_what_is_a_folder_cannot_become_a_file(tmp_path: Path) -> None:
    (tmp_path / "model" / "z").mkdir(parents=True)
    (tmp_path / "model" / "a").write_text("old")
    with (
        pytest.raises(FileExistsError, match="is to be a file and is a folder"),
        staged_folder(tmp_path / "model") as stage,
    ):
        (stage / "a").write_text("new")
        (stage / "z").write_text("new")
    assert tree_of(tmp_path) == {"model/a": b"old"}


def test_a_mount_point_is_staged_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "mount"
    target.mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)  # as if the folder above could not be written
    with staged_folder(target) as stage:
        assert stage.parent == target
        (stage / "a").write_text("1")
    assert tree_of(tmp_path) == {"mount/a": b"1"}
    assert os.listdir(target) == ["a"]


SINGLE = {"model.safetensors": b"new"}
SHARDED = {
    "model-00001-of-00002.safetensors": b"new",
    "model-00002-of-00002.safetensors": b"new",
    "model.safetensors.index.json": b"new",
}


@pytest.mark.parametrize("new", [SINGLE, SHARDED], ids=["single", "sharded"])
@pytest.mark.parametrize("old", [SINGLE, SHARDED], ids=["from single", "from sharded"])
def test_weights_of_an_earlier_save_go_and_others_stay(
    tmp_path: Path, old: dict[str, bytes], new: dict[str, bytes]
) -> None:
    others = {"model-foo.safetensors": b"o", "pytorch_model.bin": b"o", "model.fp16.safetensors": b"o", "a": b"o"}
    target = tmp_path / "model"
    (target / "sub").mkdir(parents=True)
    for name in (*old, *others):
        (target / name).write_bytes(b"o")
        (target / "sub" / name).write_bytes(b"o")
    with staged_folder(target) as stage:
        for name, content in new.items():
            (stage / name).write_bytes(content)
    found = tree_of(target)
    inner = {name.removeprefix("sub/"): found.pop(name) for name in list(found) if name.startswith("sub/")}
    assert found == {**others, **new}
    assert inner == {**others, **dict.fromkeys(old, b"o")}  # a folder that gets no weights keeps its own


PICKLED = {"pytorch_model.bin": b"new"}
PICKLED_SHARDS = {
    "pytorch_model-00001-of-00002.bin": b"new",
    "pytorch_model-00002-of-00002.bin": b"new",
    "pytorch_model.bin.index.json": b"new",
}
KINDS = {"single": SINGLE, "sharded": SHARDED, "pickled": PICKLED, "pickled shards": PICKLED_SHARDS}


@pytest.mark.parametrize("new", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("old", KINDS.values(), ids=[f"from {kind}" for kind in KINDS])
def test_a_crash_while_weights_move_never_leaves_a_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: dict[str, bytes], new: dict[str, bytes]
) -> None:
    """Stop at every rename and removal in turn; what a reader would then take must be of one save."""
    rename, unlink = os.replace, Path.unlink
    for crash_at in range(1, 20):
        target = tmp_path / str(crash_at)
        target.mkdir()
        for name in old:
            (target / name).write_bytes(b"old")
        calls = 0

        def count(crash_at: int = crash_at) -> None:
            nonlocal calls
            calls += 1
            if calls == crash_at:
                raise SystemError("the power went")

        def counted_replace(source: Path, place: Path) -> None:
            count()
            rename(source, place)

        def counted_unlink(path: Path, *, missing_ok: bool = False) -> None:
            count()
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(os, "replace", counted_replace)
        monkeypatch.setattr(Path, "unlink", counted_unlink)
        finished = _publish(target, new)
        monkeypatch.undo()
        taken = _taken_by_a_reader(tree_of(target))
        assert taken in ({b"old"}, {b"new"}, set()), (crash_at, tree_of(target))
        if finished:
            assert taken == {b"new"}
            assert crash_at > len(new)
            return
    pytest.fail("it never finished")


def _publish(target: Path, new: dict[str, bytes]) -> bool:
    try:
        with staged_folder(target) as stage:
            for name, content in new.items():
                (stage / name).write_bytes(content)
    except SystemError:
        return False
    return True


def _taken_by_a_reader(found: dict[str, bytes]) -> set[bytes]:
    """Return the contents that are read: of each format the single file first, else the index and all shards."""
    for stem, ending in (("model", "safetensors"), ("pytorch_model", "bin")):
        if f"{stem}.{ending}" in found:
            return {found[f"{stem}.{ending}"]}
        if f"{stem}.{ending}.index.json" in found:
            return {content for name, content in found.items() if name.startswith((f"{stem}-", f"{stem}."))}
    return set()


def test_everything_is_flushed_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    sync, rename = os.fsync, os.rename

    def logged_sync(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        events.append(f"sync {'stage' if name.name.startswith('.tmp-') else name.name}")
        sync(descriptor)

    def logged_rename(source: Path, target: Path) -> None:
        events.append(f"rename to {target.name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", logged_sync)
    monkeypatch.setattr(atomic.os, "rename", logged_rename)
    with staged_folder(tmp_path / "model") as stage:
        (stage / "a").write_text("1")
    assert events == ["sync a", "sync stage", "rename to model", f"sync {tmp_path.name}"]
