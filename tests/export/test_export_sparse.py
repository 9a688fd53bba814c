"""Graphs of sparse encoders: pooling inside, on onnxruntime against encode()."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from export_helpers import run_graph, tiny_encoder
from model_helpers import VOCABULARY, mixed_texts, write_encoder
from serving_helpers import exported_folder, traced_before

from sparse_encoder import SparseEncoder
from sparse_encoder.export import ExportReport, export_onnx
from sparse_encoder.export.graph import Graph
from sparse_encoder.modules import Normalize, Pooling, Router, SparseAutoEncoder, SparseStaticEmbedding, Transformer

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

TEXTS = mixed_texts(6)
TOP_K = 4


class Exported(NamedTuple):
    model: SparseEncoder
    report: ExportReport
    folder: Path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    folder, model = tmp_path_factory.mktemp("whole"), SparseEncoder(str(exported_folder()), device="cpu")
    with pytest.MonkeyPatch.context() as patch:  # it was traced for that folder; all else is done anew
        patch.setattr("sparse_encoder.export.writing.trace", traced_before)
        report = model.export_onnx(folder / "model", external_data=True)
    yield Exported(model, report, folder / "model")


@pytest.fixture(scope="module")
def largest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    folder = tmp_path_factory.mktemp("largest")
    model = tiny_encoder(folder / "checkpoint", strategy="sum", activation="log1p_relu")
    yield Exported(model, export_onnx(model, folder / "model.onnx", top_k=TOP_K), folder)


def test_weights_are_those_of_encode(whole: Exported) -> None:
    features = whole.model.preprocess(TEXTS)
    found = run_graph(whole.report.path, features)["sentence_embedding"]
    expected = whole.model.encode(TEXTS, convert_to_sparse_tensor=False, convert_to_tensor=True)
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (found > 0).any(dim=1).all()


def test_padding_changes_nothing(whole: Exported) -> None:
    features = whole.model.preprocess(TEXTS)
    together = run_graph(whole.report.path, features)["sentence_embedding"]
    for row, text in enumerate(TEXTS):
        alone = run_graph(whole.report.path, whole.model.preprocess([text]))["sentence_embedding"]
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)
    features["input_ids"] = torch.where(features["attention_mask"].bool(), features["input_ids"], 7)
    other = run_graph(whole.report.path, features)["sentence_embedding"]
    torch.testing.assert_close(other, together, atol=1e-6, rtol=1e-6)


def test_a_text_of_padding_has_no_weights(whole: Exported) -> None:
    features = whole.model.preprocess(TEXTS[:2])
    features["attention_mask"][1] = 0
    found = run_graph(whole.report.path, features)["sentence_embedding"]
    assert found[1].tolist() == [0.0] * len(VOCABULARY)
    assert found[0].any()


def test_the_folder_loads_and_the_graph_says_what_it_is(whole: Exported) -> None:
    assert (whole.folder / "modules.json").exists()
    again = SparseEncoder(str(whole.folder))
    assert torch.equal(again.encode(TEXTS).to_dense(), whole.model.encode(TEXTS).to_dense())
    graph = onnx.load(whole.report.path, load_external_data=False)
    assert {prop.key: prop.value for prop in graph.metadata_props} == {
        "sparse_encoder.version": "1",
        "sparse_encoder.task": "sparse-embedding",
        "sparse_encoder.num_dimensions": str(len(VOCABULARY)),
        "sparse_encoder.longest": "64",
    }
    assert graph.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_external_data_lies_beside_the_graph_and_moves_with_it(whole: Exported, tmp_path: Path) -> None:
    data = whole.folder / "onnx" / "model.onnx_data"
    assert whole.report.external_data == data
    assert whole.report.num_bytes == data.stat().st_size + whole.report.path.stat().st_size
    assert data.stat().st_size > whole.report.path.stat().st_size / 4
    moved = shutil.copytree(whole.folder, tmp_path / "elsewhere")
    inputs = whole.model.preprocess(TEXTS)
    first, second = (run_graph(folder / "onnx" / "model.onnx", inputs) for folder in (whole.folder, moved))
    assert torch.equal(first["sentence_embedding"], second["sentence_embedding"])
    (moved / "onnx" / "model.onnx_data").unlink()
    with pytest.raises(Exception, match="model.onnx_data"):
        run_graph(moved / "onnx" / "model.onnx", inputs)


def test_the_largest_weights_come_in_order(largest: Exported) -> None:
    assert largest.report.outputs == ("indices", "weights")
    found = run_graph(largest.report.path, largest.model.preprocess(TEXTS))
    dense = largest.model.encode(TEXTS).to_dense()
    expected = dense.topk(TOP_K, dim=1)
    torch.testing.assert_close(found["weights"], expected.values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dense.gather(1, found["indices"]), expected.values, atol=1e-5, rtol=1e-5)
    assert found["indices"].dtype == torch.int64
    assert (found["weights"].diff(dim=1) <= 0).all()


def test_the_output_is_a_hundred_times_smaller_than_the_logits(largest: Exported) -> None:
    features = largest.model.preprocess(TEXTS)
    texts, tokens = features["input_ids"].shape
    found = run_graph(largest.report.path, features)
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in found.values())
    assert 100 * num_bytes <= texts * tokens * len(VOCABULARY) * 4


@pytest.fixture(scope="module")
def routes(largest: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    folder, model = tmp_path_factory.mktemp("routes"), static_router(largest.model)
    yield Exported(model, export_onnx(model, folder, external_data=True), folder)


def test_a_second_graph_in_the_file_takes_the_data_of_the_first_away(routes: Exported, tmp_path: Path) -> None:
    folder = shutil.copytree(routes.folder, tmp_path / "copy")
    first = routes.report.moved(routes.folder, folder)
    assert first.external_data is not None
    assert first.external_data.exists()
    (first.path.parent / "model_qint8_avx2.onnx").write_bytes(b"made of the first")
    second = export_onnx(routes.model, folder, external_data=False, top_k=2, opset_version=18)
    assert (second.path, second.external_data, second.opset) == (first.path, None, 18)
    assert sorted(path.name for path in first.path.parent.iterdir()) == ["model.onnx"]


def static_router(model: SparseEncoder) -> SparseEncoder:
    """Return a model of two routes without a transformer."""
    count = len(model.tokenizer)
    weights = torch.arange(2.0 * count).reshape(2, count)
    query, document = (SparseStaticEmbedding(model.tokenizer, row / count) for row in weights)
    return SparseEncoder(modules=[Router.for_query_document([query], [document, Normalize()])])


def test_each_route_is_a_graph(routes: Exported, tmp_path: Path) -> None:
    model, report, folder = routes
    assert [each.path for each in (report, *report.others)] == [
        folder / "onnx" / "query" / "model.onnx",
        folder / "onnx" / "document" / "model.onnx",
    ]
    for task, path in (("query", report.path), ("document", report.others[0].path)):
        features = model.preprocess(TEXTS, task=task)
        inputs = {name: features[name] for name in report.inputs}
        expected = model.encode(TEXTS, task=task).to_dense()
        torch.testing.assert_close(run_graph(path, inputs)["sentence_embedding"], expected, atol=1e-6, rtol=1e-6)
        told = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
        assert told["sparse_encoder.route"] == task
    with pytest.raises(ValueError, match="path must be a folder for the graphs"):
        export_onnx(model, tmp_path / "one.onnx")


def test_dense_pooling_and_an_auto_encoder_are_traced(tmp_path: Path) -> None:
    write_encoder(tmp_path / "encoder")
    torch.manual_seed(0)
    modules = [Transformer(str(tmp_path / "encoder")), Pooling(12, ["mean", "cls"]), SparseAutoEncoder(24, 40, k=7)]
    model = SparseEncoder(modules=modules)
    report = export_onnx(model, tmp_path / "model.onnx")
    found = run_graph(report.path, model.preprocess(TEXTS))["sentence_embedding"]
    torch.testing.assert_close(found, model.encode(TEXTS).to_dense(), atol=1e-5, rtol=1e-5)
    model.set_pooling_include_prompt(False)
    with pytest.raises(ValueError, match="set_pooling_include_prompt"):
        export_onnx(model, tmp_path / "other.onnx")


@pytest.mark.slow
def test_half_precision_and_a_model_of_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_encoder(tmp_path / "checkpoint")
    half = export_onnx(model, tmp_path / "half.onnx", dtype="float16")
    assert half.largest_difference is not None
    assert half.largest_difference < 1e-2
    whole = sum(each.numel() for each in model.parameters()) * 4
    assert half.num_bytes < (exported_folder() / "onnx" / "model.onnx").stat().st_size - whole / 4
    written: list[Graph] = []

    def keep(graphs: dict[str, Graph], *_: object) -> list[ExportReport]:
        written.extend(graphs.values())
        return [half]

    monkeypatch.setattr("sparse_encoder.export.exporting.write_graphs", keep)
    export_onnx(model.to(torch.bfloat16), tmp_path / "full.onnx")
    assert model.dtype == torch.bfloat16
    (graph,) = written
    assert {each.dtype for each in graph.module.parameters()} == {torch.float32}
    inputs = graph.cases[2].inputs
    (found,) = graph.module(*inputs.values())
    torch.testing.assert_close(found, graph.reference(inputs)["sentence_embedding"], atol=1e-5, rtol=1e-5)
