"""Graphs that are made when a model is opened: they are called as was asked, saved, copied and taken away again."""

from __future__ import annotations

import copy
import gc
from pathlib import Path

import numpy as np
import pytest
from model_helpers import write_masked_language_model
from serving_helpers import TEXTS, exported_folder, traced_before

from sparse_encoder import SparseEncoder
from sparse_encoder.serving import OnnxSparseEncoder
from sparse_encoder.serving.copying import copy_served

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    exported_folder()  # once, truly
    monkeypatch.setattr("sparse_encoder.export.writing.trace", traced_before)  # of the same weights
    return write_masked_language_model(tmp_path / "model")


def opened(folder: Path, **options: object) -> OnnxSparseEncoder:
    return SparseEncoder(str(folder), backend="onnx", model_kwargs=options)


def graphs(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.onnx*"))


def same(one: OnnxSparseEncoder, other: OnnxSparseEncoder) -> bool:
    return np.array_equal(one.encode(TEXTS).numpy(), other.encode(TEXTS).numpy())


def test_what_was_made_is_saved_into_the_models_own_folder_and_into_others(folder: Path, tmp_path: Path) -> None:
    model = opened(folder)
    assert graphs(folder) == []
    model.save_pretrained(str(tmp_path / "copy"))
    assert same(opened(tmp_path / "copy", export=False), model)
    assert graphs(folder) == []
    model.save_pretrained(str(folder))
    assert graphs(folder) == graphs(tmp_path / "copy") == ["onnx/model.onnx"]
    assert same(opened(folder, export=False), model)
    copy_served(model, folder)  # finds the same graph there
    copy_served(model, tmp_path / "third")
    assert graphs(tmp_path / "third") == ["onnx/model.onnx"]


def test_a_graph_is_made_by_the_name_that_is_asked_for(folder: Path, tmp_path: Path) -> None:
    model = opened(folder, file_name="model_b")
    model.save_pretrained(str(tmp_path / "copy"))
    assert graphs(tmp_path / "copy") == ["onnx/model_b.onnx"]
    assert same(opened(tmp_path / "copy", file_name="model_b", export=False), model)
    again = opened(tmp_path / "copy", file_name="onnx/model_c.onnx", export=True)
    again.save_pretrained(str(tmp_path / "copy"))
    assert graphs(tmp_path / "copy") == ["onnx/model_c.onnx"]
    with pytest.raises(FileNotFoundError, match=r"has no graph 'wrong.onnx'; there are \['onnx/model_c.onnx'\]"):
        opened(tmp_path / "copy", file_name="wrong")
    with pytest.raises(FileNotFoundError, match="has no graph 'wrong.onnx'; there are"):
        opened(folder, file_name="wrong", export=False)
    with pytest.raises(ValueError, match="must be relative and stay in its folder"):
        opened(folder, file_name="../wrong")


def test_copies_use_the_same_graph_and_it_goes_with_the_model(folder: Path) -> None:
    model = opened(folder)
    root = model.graph_root
    twin = copy.deepcopy(model)
    assert twin.graph_root == root != folder and same(twin, model)
    del model
    gc.collect()
    assert not root.exists()
    with pytest.raises(ValueError, match="model.onnx is gone"):
        twin.save_pretrained(str(folder))


def test_a_failed_export_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no")

    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    monkeypatch.setattr("sparse_encoder.export.writing.trace", fail)
    with pytest.raises(RuntimeError, match="no"):
        opened(folder)
    assert list(place.iterdir()) == []
