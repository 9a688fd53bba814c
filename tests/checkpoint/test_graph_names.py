"""Graphs of earlier weights go when weights are saved; what killed writers left goes with the next export."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparse_encoder.checkpoint import staged_folder
from sparse_encoder.checkpoint.graph_names import data_name, graph_files, graph_of
from sparse_encoder.checkpoint.left_over import remove_left_over
from sparse_encoder.export.placing import staged_graphs

DEAD_PROCESS = 2**22 + 1  # beyond the largest process number of Linux
GRAPHS = (
    "model.onnx", "onnx/decoder_model.onnx", "onnx/model.onnx", "onnx/model.onnx.data", "onnx/model.onnx_data",
    "onnx/model_qint8_avx2.onnx", "onnx/query/model.onnx",
)  # fmt: skip
OTHERS = ("config.json", "onnx/mine.onnx", "onnx/model.onnx.txt", "other/model.onnx")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*GRAPHS, *OTHERS, "model.safetensors"):
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old")
    return tmp_path / "model"


def test_graphs_are_known_by_name(folder: Path) -> None:
    assert [path.relative_to(folder).as_posix() for path in graph_files(folder)] == sorted(GRAPHS)


def test_a_graph_and_the_file_with_its_weights_find_each_other() -> None:
    graph = Path("onnx/model_qint8.onnx")
    assert data_name(graph) == "model_qint8.onnx_data"
    for name in ("model_qint8.onnx", "model_qint8.onnx_data", "model_qint8.onnx.data"):
        assert graph_of(graph.with_name(name)) == graph
    assert graph_of(Path("onnx/model_data")) == Path("onnx/model_data")


@pytest.mark.parametrize("name", ["model.safetensors", "2_Dense/model.safetensors", "adapter_config.json"])
def test_new_weights_take_the_graphs_of_the_old_ones_away(folder: Path, name: str) -> None:
    with staged_folder(folder) as stage:
        for new in (name, "onnx/model.onnx"):
            (stage / new).parent.mkdir(exist_ok=True)
            (stage / new).write_text("new")
    assert graph_files(folder) == [folder / "onnx" / "model.onnx"]
    assert (folder / "onnx" / "model.onnx").read_text() == "new"
    assert all((folder / other).read_text() == "old" for other in OTHERS)


def test_other_files_leave_graphs_alone(folder: Path) -> None:
    with staged_folder(folder) as stage:
        (stage / "README.md").write_text("new")
    assert len(graph_files(folder)) == len(GRAPHS)


def test_graphs_are_gone_before_a_weight_is_moved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sparse_encoder.checkpoint.atomic._move_set", killed)
    with pytest.raises(KeyboardInterrupt), staged_folder(folder) as stage:
        (stage / "model.safetensors").write_text("new")
    assert (folder / "model.safetensors").read_text() == "old"
    assert graph_files(folder) == []


def test_links_are_not_followed(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "onnx").symlink_to(folder / "onnx")
    assert graph_files(tmp_path / "other") == []


def test_new_graphs_replace_all_of_the_folder(folder: Path) -> None:
    with staged_graphs(folder) as stage:
        (stage / "onnx" / "document").mkdir(parents=True)
        (stage / "onnx" / "document" / "model.onnx").write_text("new")
    found = [path.relative_to(folder).as_posix() for path in graph_files(folder)]
    assert found == ["model.onnx", "onnx/document/model.onnx"]
    with staged_graphs(folder) as stage:  # a file that the caller names is nobody's but his
        (stage / "alone.onnx").write_text("new")
    assert (folder / "onnx" / "document" / "model.onnx").exists()


def test_no_graph_stays_without_its_data_when_a_new_one_is_moved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sparse_encoder.export.placing._move", killed)
    with pytest.raises(KeyboardInterrupt), staged_graphs(folder) as stage:
        (stage / "onnx").mkdir()
        (stage / "onnx" / "model.onnx").write_text("new")
    assert not (folder / "onnx" / "model.onnx").exists()
    assert not (folder / "onnx" / "model.onnx.data").exists()


def test_what_a_killed_export_left_goes_with_the_next(tmp_path: Path) -> None:
    dead, alive = tmp_path / f".tmp-{DEAD_PROCESS}-0a", tmp_path / ".tmp-1-0a"
    for path in (dead, alive):
        path.mkdir()
        (path / "model.onnx").touch()
    with staged_graphs(tmp_path) as stage:
        (stage / "model.onnx").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-1-0a", "model.onnx"]
    remove_left_over(tmp_path / "nowhere")
