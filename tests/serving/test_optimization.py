"""Graphs written as onnxruntime optimises them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from serving_helpers import TEXTS, copy_of, exported_folder

from sparse_encoder import SparseEncoder, export_optimized_onnx_model
from sparse_encoder.backend import export_optimized_onnx_model as of_backend
from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.modules import SparseStaticEmbedding
from sparse_encoder.serving import OnnxSparseEncoder, optimization

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


def opened(folder: Path, **options: object) -> OnnxSparseEncoder:
    return SparseEncoder(str(folder), backend="onnx", model_kwargs=options)


@pytest.mark.parametrize(("level", "kinds"), [("O1", {"Gelu"}), ("O2", {"BiasGelu"}), ("O3", {"FastGelu"})])
def test_each_level_is_written_and_computes_the_same(tmp_path: Path, level: str, kinds: set[str]) -> None:
    folder = copy_of(exported_folder(), tmp_path / "model")
    model = opened(folder)
    report = export_optimized_onnx_model(model, optimization_config=level, model_name_or_path=str(folder))
    assert report.file_name == f"onnx/model_{level}.onnx" and report.lowest_cosine > 0.9999
    assert kinds <= {node.op_type for node in onnx.load(report.paths[0]).graph.node}
    found = opened(folder, file_name=report.file_name)
    assert np.abs(found.encode(TEXTS).numpy() - model.encode(TEXTS).numpy()).max() < 1e-2


def test_weights_beside_a_graph_stay_beside_it(tmp_path: Path) -> None:
    folder = copy_of(exported_folder(), tmp_path / "model")
    path = folder / "onnx" / "model.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="model.onnx_data", size_threshold=1024)
    report = of_backend(opened(folder), "O2", str(folder), file_suffix="small")
    assert (folder / "onnx" / "model_small.onnx_data").exists()
    path.unlink()
    (folder / "onnx" / "model.onnx_data").unlink()
    found, expected = opened(folder, file_name=report.file_name), opened(exported_folder())
    assert np.abs(found.encode(TEXTS).numpy() - expected.encode(TEXTS).numpy()).max() < 1e-5


def test_a_damaged_result_is_not_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy_of(exported_folder(), tmp_path / "model")
    before = sorted(folder.rglob("*"))
    write = optimization._write

    def damage(graph: Path, target: Path, level: str) -> None:
        write(graph, target, level)
        target.write_bytes(target.read_bytes()[:-100])

    monkeypatch.setattr(optimization, "_write", damage)
    with pytest.raises(CheckpointError, match="onnxruntime cannot open it"):
        export_optimized_onnx_model(opened(folder), "O1", str(folder))
    assert sorted(folder.rglob("*")) == before


def test_a_model_without_graphs_is_refused(tmp_path: Path) -> None:
    tokenizer = SparseEncoder(str(exported_folder()), device="cpu").tokenizer
    table = SparseStaticEmbedding(tokenizer, torch.linspace(0, 2, tokenizer.vocab_size))
    SparseEncoder(modules=[table], device="cpu").save_pretrained(str(tmp_path / "table"))
    with pytest.raises(FileNotFoundError, match="has no route with a graph"):
        export_optimized_onnx_model(opened(tmp_path / "table"), "O1", str(tmp_path / "new"))


def test_what_cannot_be_optimised_is_refused(tmp_path: Path) -> None:
    model = opened(exported_folder())
    with pytest.raises(ValueError, match=r"must be one of \['O1', 'O2', 'O3'\], got 'O4'; .*float16"):
        export_optimized_onnx_model(model, "O4", str(tmp_path))
    with pytest.raises(ValueError, match="create_pr=True proposes an upload"):
        export_optimized_onnx_model(model, "O1", str(tmp_path), create_pr=True)
    with pytest.raises(TypeError, match="model must be a SparseEncoder, got a dict"):
        export_optimized_onnx_model({}, "O1", str(tmp_path))
    assert list(tmp_path.iterdir()) == []
