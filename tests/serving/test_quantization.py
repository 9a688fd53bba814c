"""Graphs in 8 bits: near the graph in float32, the same whatever stands beside a text, and reported."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_helpers import write_masked_language_model
from serving_helpers import TEXTS, copy_of, exported_folder

from sparse_encoder import SparseEncoder, export_optimized_onnx_model
from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.evaluation import SparseInformationRetrievalEvaluator
from sparse_encoder.modules import Router, SparseStaticEmbedding, SpladePooling, Transformer
from sparse_encoder.serving import QuantizationReport, export_dynamic_quantized_onnx_model, quantize_onnx, tables
from sparse_encoder.serving.machine import CONFIGS, this_machine
from sparse_encoder.serving.quality import _cosines, _overlap

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of(exported_folder(), tmp_path_factory.mktemp("int8") / "model")


@pytest.fixture(scope="module")
def evaluator() -> SparseInformationRetrievalEvaluator:
    queries, corpus = {"q": TEXTS[0]}, {str(place): text for place, text in enumerate(TEXTS)}
    return SparseInformationRetrievalEvaluator(queries, corpus, {"q": {"0"}}, show_progress_bar=False)


@pytest.fixture(scope="module")
def report(folder: Path, evaluator: SparseInformationRetrievalEvaluator) -> QuantizationReport:
    return quantize_onnx(folder, texts=TEXTS, evaluator=evaluator)


def test_the_report_says_what_has_changed(
    folder: Path, report: QuantizationReport, evaluator: SparseInformationRetrievalEvaluator
) -> None:
    assert report.file_name == f"onnx/model_qint8_{this_machine()}.onnx"
    assert report.paths == (folder / report.file_name,)
    assert (report.num_texts, report.bytes_after) == (len(TEXTS), (folder / report.file_name).stat().st_size)
    before, after = (
        SparseEncoder(str(folder), backend="onnx", model_kwargs=kwargs).encode_document(TEXTS).numpy()
        for kwargs in ({}, {"file_name": report.file_name})
    )
    scale = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    assert report.cosine == pytest.approx(((before * after).sum(axis=1) / scale).mean(), abs=1e-6)
    assert 0.99 < report.lowest_cosine <= report.cosine < 1
    assert 0.9 < report.term_overlap <= 1
    gaps = np.abs(after @ after.T - before @ before.T).mean() / np.abs(before @ before.T).mean()
    assert report.score_error == pytest.approx(gaps, rel=1e-4)
    assert report.metric == "cosine_ndcg@10" and report.metric_after is not None
    assert report.metric_before == evaluator(SparseEncoder(str(folder), device="cpu"))[report.metric]
    lines = str(report).splitlines()
    assert report.file_name in lines[0] and f"{report.metric}:" in lines[3]


def test_a_text_is_its_own_in_8_bits_too(folder: Path, report: QuantizationReport) -> None:
    served: Any = SparseEncoder(str(folder), backend="onnx", model_kwargs={"file_name": report.file_name})
    together = served.encode(TEXTS).numpy()
    assert np.array_equal(served.encode(TEXTS[::-1], batch_size=3).numpy()[::-1], together)
    assert np.array_equal(served.encode(TEXTS[2]).numpy(), together[2])


def test_the_graph_keeps_what_it_says_of_itself(folder: Path, report: QuantizationReport) -> None:
    import onnx

    old, new = (
        {each.key: each.value for each in onnx.load(folder / name).metadata_props}
        for name in ("onnx/model.onnx", report.file_name)
    )
    machine = {"sparse_encoder.machine": "avx512_vnni"} if this_machine() == "avx512_vnni" else {}
    assert new == {**old, "sparse_encoder.quantized": "qint8", **machine}


@pytest.mark.parametrize(("machine", "kind"), [("avx2", "MatMulNBits"), ("avx512_vnni", "MatMulIntegerToFloat")])
def test_products_are_those_of_the_machine(folder: Path, machine: str, kind: str) -> None:
    import onnx

    if machine == "avx512_vnni" and this_machine() != machine:
        kind = "MatMulNBits"  # what cannot be measured here is not written
    report = quantize_onnx(folder, quantization_config=machine, file_suffix=f"of_{machine}", texts=TEXTS)
    weights = {each.name for each in onnx.load(folder / report.file_name).graph.initializer}
    nodes = onnx.load(folder / report.file_name).graph.node
    assert kind in {node.op_type for node in nodes}
    assert not [node.name for node in nodes if node.op_type == "MatMul" and node.input[1] in weights]
    assert 0.99 < report.lowest_cosine < 1
    served: Any = SparseEncoder(str(folder), backend="onnx", model_kwargs={"file_name": report.file_name})
    together = served.encode(TEXTS).numpy()
    assert np.array_equal(served.encode(TEXTS[::-1], batch_size=3).numpy()[::-1], together)
    assert np.array_equal(served.encode(TEXTS[2]).numpy(), together[2])


INTEGER_MODULES = ("sparse_encoder.serving.quantization.this_machine", "sparse_encoder.serving.session.check_machine")


def test_products_of_integers_are_opened_where_they_are_exact(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    copy = copy_of(folder, tmp_path / "model")
    with monkeypatch.context() as patched:  # as on a machine with VNNI; numbers are not looked at
        patched.setattr(INTEGER_MODULES[0], lambda: "avx512_vnni")
        patched.setattr(INTEGER_MODULES[1], lambda *_: None)
        report = quantize_onnx(copy, quantization_config="avx512_vnni", texts=TEXTS[:2])
    graph = onnx.load(copy / report.file_name)
    assert {each.key: each.value for each in graph.metadata_props}["sparse_encoder.machine"] == "avx512_vnni"
    options = {"file_name": report.file_name}
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for flags in ({"avx2"}, {"avx2", "avx512f"}):
        monkeypatch.setattr("sparse_encoder.serving.machine._flags", lambda flags=flags: frozenset(flags))
        name = "avx512" if "avx512f" in flags else "avx2"
        with pytest.raises(CheckpointError, match=rf"on this machine, '{name}'.*quantization_config='{name}'"):
            SparseEncoder(str(copy), backend="onnx", model_kwargs=options)
    for flags in (set(), {"avx512_vnni"}, {"avx2", "avx_vnni"}):
        monkeypatch.setattr("sparse_encoder.serving.machine._flags", lambda flags=flags: frozenset(flags))
        assert SparseEncoder(str(copy), backend="onnx", model_kwargs=options) is not None


def test_elsewhere_the_file_of_that_name_is_exact_everywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    monkeypatch.setattr("sparse_encoder.serving.quantization.this_machine", lambda: "avx2")
    report = quantize_onnx(folder, quantization_config="avx512_vnni", file_suffix="elsewhere", texts=TEXTS)
    graph = onnx.load(folder / report.file_name)
    assert "sparse_encoder.machine" not in {each.key for each in graph.metadata_props}
    kinds = {node.op_type for node in graph.graph.node}
    assert "MatMulNBits" in kinds and "MatMulIntegerToFloat" not in kinds
    assert 0.99 < report.lowest_cosine < 1


@pytest.mark.parametrize("suffix", ["a/b", "x y", "../up", "", "\u00fc"])
def test_names_that_would_not_be_found_again_are_refused(folder: Path, tmp_path: Path, suffix: str) -> None:
    rule = "file_suffix must be letters of ASCII, digits"
    model = SparseEncoder(str(folder), backend="onnx")
    with pytest.raises(ValueError, match=rule):
        quantize_onnx(folder, file_suffix=suffix)
    for export, config in ((export_dynamic_quantized_onnx_model, "avx2"), (export_optimized_onnx_model, "O1")):
        with pytest.raises(ValueError, match=rule):
            export(model, config, str(tmp_path / "new"), file_suffix=suffix)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TypeError, match="file_suffix must be a string, got 3"):
        quantize_onnx(folder, file_suffix=3)  # type: ignore[arg-type]


def test_what_cannot_be_opened_is_not_put_in_place(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_of(folder, tmp_path / "model")
    before = sorted(copy.rglob("*"))

    def damage(_: object, model: Any) -> int:  # noqa: ANN401 - a ModelProto
        model.graph.node[-1].op_type = "Nothing"
        return 0

    monkeypatch.setattr("sparse_encoder.serving.quantization.quantize_tables", damage)
    with pytest.raises(CheckpointError, match="onnxruntime cannot open it"):
        quantize_onnx(copy, quantization_config="avx2", file_suffix="new", texts=["rain"])
    assert sorted(copy.rglob("*")) == before


def test_logging_of_the_program_is_left_alone(folder: Path) -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    quantize_onnx(folder, quantization_config="arm64", texts=["rain"])
    assert (root.handlers, root.level) == before
    assert (folder / "onnx" / "model_qint8_arm64.onnx").is_file()


def test_the_peers_function_writes_the_peers_file(folder: Path) -> None:
    model = SparseEncoder(str(folder), backend="onnx")
    report = export_dynamic_quantized_onnx_model(model, "avx2", str(folder), file_suffix="small")
    assert report.file_name == "onnx/model_small.onnx"
    with pytest.raises(ValueError, match="create_pr=True proposes an upload, and needs push_to_hub=True"):
        export_dynamic_quantized_onnx_model(model, "avx2", str(folder), create_pr=True)
    with pytest.raises(ValueError, match="unknown quantization_config 'sse'"):
        export_dynamic_quantized_onnx_model(model, "sse", str(folder))


def test_bad_input_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown quantization_config 'sse'; choose from \['arm64'"):
        quantize_onnx(folder, quantization_config="sse")
    with pytest.raises(ValueError, match="texts must be a list of at least one text"):
        quantize_onnx(folder, texts="rain")
    with pytest.raises(FileNotFoundError, match="has no onnx/model.onnx"):
        quantize_onnx(write_masked_language_model(tmp_path))


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("aarch64", "fp asimd", "arm64"),
        ("x86_64", "fpu sse4_2 avx2", "avx2"),
        ("x86_64", "fpu avx2 avx512f", "avx512"),
        ("AMD64", "fpu avx2 avx512f avx512_vnni", "avx512_vnni"),
        ("x86_64", None, "avx2"),
    ],
)
def test_files_are_named_after_this_machine(
    machine: str, flags: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(path: Path, encoding: str) -> str:
        assert str(path) == "/proc/cpuinfo"
        if flags is None:
            raise FileNotFoundError(path)
        return f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: avx512_vnni\n\nprocessor\t: 1\nflags\t\t: {flags}\n"

    monkeypatch.setattr("platform.machine", lambda: machine)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", read_text)
        found = this_machine()
    assert found == expected
    assert found in CONFIGS


def test_figures_by_hand() -> None:
    old, new = np.array([[3.0, 4.0, 0.0], [0, 0, 0]]), np.array([[4.0, 3.0, 0.0], [0, 0, 0]])
    assert _cosines(old, new).tolist() == [pytest.approx(24 / 25), 1.0]
    assert _overlap(np.array([3.0, 2.0, 0.0, 0.0]), np.array([3.0, 0.0, 2.0, 0.0])) == 0.5
    assert _overlap(np.zeros(3), np.ones(3)) == 1.0


def test_rows_of_a_table_are_rounded_by_a_scale_of_their_own() -> None:
    table = np.array([[127.0, -63.6, 0.4], [0, 0, 0], [0.0127, 0.0, -0.00635]], dtype=np.float32)
    numbers, scales = tables.round_rows(table)
    assert numbers.tolist() == [[127, -64, 0], [0, 0, 0], [127, 0, -64]] and numbers.dtype == np.int8
    assert scales[:, 0].tolist() == pytest.approx([1.0, 1.0, 0.0001])


def test_the_vocabularys_table_is_in_8_bits_too(
    folder: Path, report: QuantizationReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    monkeypatch.setattr(tables, "LARGE_TABLE", 88)
    small = quantize_onnx(folder, file_suffix="tables", texts=TEXTS)
    graph = onnx.load(folder / small.file_name).graph
    found = {tuple(each.dims): each.data_type for each in graph.initializer if 88 in each.dims[:1]}
    assert found[(88, 12)] == onnx.TensorProto.INT8 and found[(88, 1)] == onnx.TensorProto.FLOAT
    assert small.bytes_after < report.bytes_after - 88 * 12 * 2
    assert small.lowest_cosine > 0.99
    served: Any = SparseEncoder(str(folder), backend="onnx", model_kwargs={"file_name": small.file_name})
    together = served.encode(TEXTS).numpy()
    assert np.array_equal(served.encode(TEXTS[::-1], batch_size=3).numpy()[::-1], together)


def router_folder(source: Path, target: Path) -> Path:
    """Write an inference-free model: queries from a table, documents by the graph."""
    transformer = Transformer(str(source), transformer_task="fill-mask")
    queries = SparseStaticEmbedding(transformer.tokenizer, torch.linspace(0, 2, transformer.tokenizer.vocab_size))
    router = Router.for_query_document([queries], [transformer, SpladePooling()])
    SparseEncoder(modules=[router], device="cpu").save_pretrained(str(target))
    for route in ("query", "document"):
        (target / "onnx" / route).mkdir(parents=True)
        shutil.copy(source / "onnx" / "model.onnx", target / "onnx" / route)
    return target


def test_routes_that_are_read_from_a_table_are_left_out(folder: Path, tmp_path: Path) -> None:
    routes = router_folder(folder, tmp_path / "routes")
    report = quantize_onnx(routes, quantization_config="avx2", texts=(text for text in TEXTS))
    assert report.paths == (routes / "onnx" / "document" / "model_qint8_avx2.onnx",)
    assert report.paths[0].exists() and not (routes / "onnx" / "query" / "model_qint8_avx2.onnx").exists()
    assert 0.99 < report.lowest_cosine < 1 and report.num_texts == len(TEXTS)
    served: Any = SparseEncoder(str(routes), backend="onnx", model_kwargs={"file_name": report.file_name})
    assert served.encode_document("rain").to_dict() != served.encode_query("rain").to_dict()
    (routes / "onnx" / "document" / "model.onnx").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no onnx/document/model.onnx; .*export_onnx"):
        quantize_onnx(routes)


def test_a_failure_leaves_nothing_half_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = copy_of(folder, tmp_path / "model")
    before = sorted(copy.rglob("*"))

    def fail(*_: object) -> int:
        raise ValueError("cannot be")

    monkeypatch.setattr("sparse_encoder.serving.quantization.quantize_tables", fail)
    with pytest.raises(ValueError, match="cannot be"):
        quantize_onnx(copy, file_suffix="new")
    assert sorted(copy.rglob("*")) == before


def test_the_peers_function_takes_a_served_model_to_a_new_folder(folder: Path, tmp_path: Path) -> None:
    model: Any = SparseEncoder(str(folder), backend="onnx")
    report = export_dynamic_quantized_onnx_model(model, "avx2", str(tmp_path / "new"))
    again: Any = SparseEncoder(str(tmp_path / "new"), backend="onnx")
    assert np.array_equal(again.encode(TEXTS).numpy(), model.encode(TEXTS).numpy())
    small: Any = SparseEncoder(str(tmp_path / "new"), backend="onnx", model_kwargs={"file_name": report.file_name})
    assert 0.99 < report.lowest_cosine < 1
    assert sorted(path.name for path in (tmp_path / "new" / "onnx").iterdir()) == [
        "model.onnx",
        "model_qint8_avx2.onnx",
    ]
    with pytest.raises(ValueError, match="is in 8 bits already"):
        export_dynamic_quantized_onnx_model(small, "avx2", str(tmp_path / "other"))
    other = copy_of(folder, tmp_path / "mine")
    shutil.copy(tmp_path / "new" / report.file_name, other / "onnx" / "model.onnx")  # another graph by now
    held: Any = SparseEncoder(str(folder), backend="onnx")
    export_dynamic_quantized_onnx_model(held, "avx2", str(other))  # what was there is replaced
    assert (other / "onnx" / "model.onnx").read_bytes() == (folder / "onnx" / "model.onnx").read_bytes()


def test_the_peers_function_writes_the_model_that_it_is_given(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_of(folder, tmp_path / "model")
    model = SparseEncoder(str(copy), device="cpu")
    written: list[Path] = []
    monkeypatch.setattr(type(model), "export_onnx", lambda self, path: written.append(path))
    export_dynamic_quantized_onnx_model(model, "avx2", str(copy))
    assert written == [copy]
    with pytest.raises(TypeError, match="model must be a SparseEncoder, got a dict"):
        export_dynamic_quantized_onnx_model({}, "avx2", str(copy))


def test_texts_are_judged(folder: Path) -> None:
    with pytest.raises(TypeError, match=r"texts\[1\] must be a string, got 1"):
        quantize_onnx(folder, texts=["rain", 1])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="texts must be a list of at least one text"):
        quantize_onnx(folder, texts=iter(()))
