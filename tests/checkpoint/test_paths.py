from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sparse_encoder.checkpoint.errors import CheckpointError, ConfigError, LoadError
from sparse_encoder.checkpoint.paths import open_regular, read_limited, resolve_inside

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "./",
        "..",
        "../x",
        "a/../../x",
        "a/..",
        "/etc/passwd",
        "//host/share/x",
        "C:x",
        "C:/x",
        "c:\\x",
        "\\\\host\\share",
        "a\\..\\b",
        "a\\b",
        "a\0b",
        "a\nb",
        "\ud800",
        "a" * 1001,
    ],
)
def test_paths_that_could_leave_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="a path in a model's files must be") as caught:
        resolve_inside(tmp_path, name)
    assert caught.value.path == str(tmp_path)


@pytest.mark.parametrize("name", ["1_SpladePooling", "a/b.json", "idf.json", "..hidden", "a..b", "x/"])
def test_paths_that_stay_are_joined(tmp_path: Path, name: str) -> None:
    assert resolve_inside(tmp_path, name) == tmp_path / name


def test_the_error_is_the_caller_s(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        resolve_inside(tmp_path, "../x", error=CheckpointError)


def test_links_may_stay_in_the_folder_and_not_leave_it(tmp_path: Path) -> None:
    root = tmp_path / "model"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (root / "sub" / "in").symlink_to("../other")
    (root / "out").symlink_to("../secret")
    (root / "folder").symlink_to(tmp_path)
    (root / "loop").symlink_to("loop")
    assert resolve_inside(root, "sub/in") == root / "sub" / "in"
    for name in ("out", "folder/secret", "folder"):
        with pytest.raises(ConfigError, match="a link that leads out of the folder"):
            resolve_inside(root, name)
    with pytest.raises(LoadError, match="cannot be opened: Too many levels"):
        open_regular(resolve_inside(root, "loop"))


def test_a_root_that_is_a_link_is_the_folder_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "config.json").write_text("{}")
    (tmp_path / "link").symlink_to("real")
    assert resolve_inside(tmp_path / "link", "config.json").read_text() == "{}"


def _snapshot(cache: Path, repository: str = "models--org--m") -> Path:
    root = cache / repository / "snapshots" / COMMIT
    (root / "sub").mkdir(parents=True)
    (cache / repository / "blobs").mkdir()
    return root


def test_links_of_a_hub_snapshot_lead_to_its_own_blobs_only(tmp_path: Path) -> None:
    root = _snapshot(tmp_path)
    other = _snapshot(tmp_path, "models--org--other")
    (tmp_path / "models--org--m" / "blobs" / "aa").write_text("mine")
    (tmp_path / "models--org--other" / "blobs" / "bb").write_text("theirs")
    (root / "sub" / "mine").symlink_to("../../../blobs/aa")
    (root / "theirs").symlink_to("../../../models--org--other/blobs/bb")
    (root / "refs").symlink_to("../../refs")
    assert resolve_inside(root, "sub/mine").read_text() == "mine"
    assert resolve_inside(root / "sub", "mine").read_text() == "mine"  # a module's folder of the same snapshot
    for name in ("theirs", "refs"):
        with pytest.raises(ConfigError, match="leads out"):
            resolve_inside(root, name)
    assert other.is_dir()


def test_the_shared_store_of_a_hub_cache_counts_as_blobs(tmp_path: Path) -> None:
    root = _snapshot(tmp_path)
    content = tmp_path / "blobs" / "ab" / ("ab" + "0" * 62)
    content.parent.mkdir(parents=True)
    content.write_text("shared")
    (tmp_path / "blobs" / "notes").write_text("x")
    (tmp_path / "models--org--m" / "blobs" / "cc").symlink_to(content)
    (root / "shared").symlink_to("../../blobs/cc")
    (root / "notes").symlink_to("../../../blobs/notes")
    assert resolve_inside(root, "shared").read_text() == "shared"
    with pytest.raises(ConfigError, match="leads out"):
        resolve_inside(root, "notes")


def test_blobs_that_are_themselves_a_link_give_no_way_out(tmp_path: Path) -> None:
    root = _snapshot(tmp_path / "cache")
    (tmp_path / "secret").write_text("x")
    blobs = tmp_path / "cache" / "models--org--m" / "blobs"
    blobs.rmdir()
    blobs.symlink_to(tmp_path)
    (root / "file").symlink_to("../../blobs/secret")
    with pytest.raises(ConfigError, match="leads out"):
        resolve_inside(root, "file")


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    short = os.open(tmp_path, os.O_RDONLY)  # a socket's path must be short
    try:
        server.bind(f"/proc/self/fd/{short}/socket")
        (tmp_path / "device").symlink_to("/dev/zero")
        for name in ("pipe", "socket", "device", "."):
            with pytest.raises(CheckpointError, match="regular file|cannot be opened"):
                open_regular(tmp_path / name, error=CheckpointError)
    finally:
        os.close(short)
        server.close()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
    (tmp_path / "dangling").symlink_to("none")
    with pytest.raises(LoadError, match="a link to nothing"):
        open_regular(tmp_path / "dangling")


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "five").write_bytes(b"12345")
    assert read_limited(tmp_path / "five", max_bytes=5) == b"12345"
    with pytest.raises(LoadError, match="must not be larger than 4 bytes"):
        read_limited(tmp_path / "five", max_bytes=4)
