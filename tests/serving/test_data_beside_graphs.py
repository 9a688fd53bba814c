"""Weights in a file beside a graph, under either name that loaders know."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving_helpers import TEXTS, copy_of, exported_folder

from sparse_encoder import SparseEncoder
from sparse_encoder.serving import quantize_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(params=["model.onnx_data", "model.onnx.data"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The file with the weights of a graph."""
    graph = copy_of(exported_folder(), tmp_path / "model") / "onnx" / "model.onnx"
    whole = onnx.load(graph)
    graph.unlink()
    onnx.save(whole, graph, save_as_external_data=True, location=request.param, size_threshold=1024)
    return graph.with_name(request.param)


def test_it_is_copied_with_its_graph_and_no_others_are(data: Path, tmp_path: Path) -> None:
    data.with_name("model_small.onnx.data").write_bytes(b"of a graph that is not run")
    model = SparseEncoder(str(data.parents[1]), backend="onnx")
    model.save_pretrained(str(tmp_path / "copy"))
    assert sorted(path.name for path in (tmp_path / "copy" / "onnx").iterdir()) == ["model.onnx", data.name]
    again = SparseEncoder(str(tmp_path / "copy"), backend="onnx")
    assert (again.encode(TEXTS).numpy() == model.encode(TEXTS).numpy()).all()


def test_its_bytes_are_the_graphs(data: Path) -> None:
    report = quantize_onnx(data.parents[1], texts=TEXTS[:1])
    sizes = [path.stat().st_size for path in (data, data.with_name("model.onnx"))]
    assert min(sizes) > 0 and report.bytes_before == sum(sizes)


def test_it_goes_when_new_weights_come(data: Path, tmp_path: Path) -> None:
    SparseEncoder(str(data.parents[1]), device="cpu").save_pretrained(str(tmp_path / "new"))
    SparseEncoder(str(tmp_path / "new"), device="cpu").save_pretrained(str(data.parents[1]))
    assert not data.exists() and not data.with_name("model.onnx").exists()
