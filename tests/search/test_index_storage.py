from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from search_helpers import random_rows

from sparse_encoder.search import SparseIndex, arrays, segment

IDS = ["plain", "", "tab\tand\nnewline", "\U0001f50d", "lone \ud800 surrogate", "a" * 1000, "../up"]


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> SparseIndex:
    monkeypatch.setattr(segment, "MAX_DOCUMENTS", 3)
    return SparseIndex.build(random_rows(7, 11, seed=0), IDS, fingerprint="model 1")


def assert_same(found: SparseIndex, expected: SparseIndex) -> None:
    assert (found.ids, found.dim, found.fingerprint) == (expected.ids, expected.dim, expected.fingerprint)
    queries = random_rows(5, 11, seed=1)
    pair = [index.search_arrays(queries, fingerprint=index.fingerprint) for index in (found, expected)]
    for ours, theirs in zip(*pair, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("memory_map", [True, False])
def test_saved_is_loaded(index: SparseIndex, memory_map: bool, tmp_path: Path) -> None:
    index.save(tmp_path / "deep" / "index")
    assert_same(SparseIndex.load(tmp_path / "deep" / "index", memory_map=memory_map), index)
    assert_same(SparseIndex.load(str(tmp_path / "deep" / "index")), index)


def test_an_empty_index(tmp_path: Path) -> None:
    SparseIndex.build(random_rows(0, 11, seed=0)).save(tmp_path / "index")
    loaded = SparseIndex.load(tmp_path / "index")
    assert (len(loaded), loaded.dim, loaded.fingerprint) == (0, 11, None)


def test_postings_stay_in_their_files(tmp_path: Path) -> None:
    SparseIndex.build(random_rows(1000, 500, seed=0)).save(tmp_path / "index")
    (posting,) = SparseIndex.load(tmp_path / "index")._segments
    (copied,) = SparseIndex.load(tmp_path / "index", memory_map=False)._segments
    places = mapped_places()
    assert any(begin <= posting.weights.ctypes.data < end for begin, end in places)
    assert not any(begin <= copied.weights.ctypes.data < end for begin, end in places)


def mapped_places() -> list[tuple[int, int]]:
    """Return where this process has index files in memory."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc")
    lines = [line.split(maxsplit=5) for line in maps.read_text().splitlines() if ".safetensors" in line]
    return [tuple(int(end, 16) for end in line[0].split("-")) for line in lines]  # type: ignore[misc]


def test_a_save_replaces_an_older_one(index: SparseIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    other = SparseIndex.build(random_rows(2, 11, seed=9))
    other.save(tmp_path / "index")
    assert_same(SparseIndex.load(tmp_path / "index"), other)
    assert len(os.listdir(tmp_path / "index")) == 3  # manifest, ids, one segment


def test_other_files_are_left_alone(index: SparseIndex, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    index.save(tmp_path)
    index.save(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert_same(SparseIndex.load(tmp_path), index)


@pytest.mark.parametrize("fail_at", range(1, 6))
def test_a_save_cut_short_leaves_the_old_or_the_new(
    index: SparseIndex, fail_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.save(tmp_path / "index")
    other = SparseIndex.build(random_rows(4, 11, seed=9))  # two segments
    moves = 0
    replace = os.replace

    def fail(source: str, target: str) -> None:
        nonlocal moves
        if Path(target).parent == tmp_path / "index":
            moves += 1
            if moves == fail_at:
                raise OSError("the power went")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    if fail_at < 5:
        with pytest.raises(OSError, match="the power went"):
            other.save(tmp_path / "index")
        assert_same(SparseIndex.load(tmp_path / "index"), index)
    else:  # three files and the manifest: nothing is left to fail
        other.save(tmp_path / "index")
        assert_same(SparseIndex.load(tmp_path / "index"), other)


def test_file_modes_follow_the_umask(index: SparseIndex, tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        index.save(tmp_path / "index")
    finally:
        os.umask(mask)
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "index").iterdir()} == {"0o644"}


def test_no_index_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SparseIndex.load(tmp_path)


def test_strings_round_trip() -> None:
    assert arrays.unpack_strings(arrays.pack_strings(IDS)) == IDS
    assert arrays.unpack_strings(arrays.pack_strings([])) == []
