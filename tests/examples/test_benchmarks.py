"""The benchmarks' own arithmetic, and one worker of each at a size that says nothing of speed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import sparse_encoder.samplers

BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def module(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, loaded)
        spec.loader.exec_module(loaded)
        return loaded

    return module


def test_a_ratio_says_how_much_better_we_are(load: object, capsys: pytest.CaptureFixture[str]) -> None:
    harness = load("harness")  # type: ignore[operator]
    rows = {harness.OURS: {"seconds": 2.0, "peak_bytes": 30.0}, harness.PEER: {"seconds": 3.0, "peak_bytes": 40.0}}
    report = harness.show("title", rows, {"seconds": ("faster", 1.5), "peak_bytes": ("smaller", 0.6)})
    assert report["ratios"]["seconds"] == {"kind": "faster", "ratio": 1.5, "target": 1.5, "met": True}
    assert report["ratios"]["peak_bytes"] == {"kind": "smaller", "ratio": 0.75, "target": 0.6, "met": False}
    assert "MISSED" in capsys.readouterr().out


@pytest.mark.parametrize(("met", "code"), [(True, 0), (False, 1)])
def test_a_missed_target_is_an_error_of_the_command(
    load: object, met: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = load("harness")  # type: ignore[operator]
    monkeypatch.setattr(sys, "argv", ["benchmark", "--rounds", "1"])
    with pytest.raises(SystemExit) as left:
        harness.main("", lambda *_: {}, lambda rounds: [{"ratios": {"seconds": {"met": met}}}])
    assert left.value.code == code


def test_one_worker_of_encoding_and_training_each(
    load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    materials, encode, train = load("materials"), load("encode"), load("train")  # type: ignore[operator]
    monkeypatch.setattr(materials, "VOCABULARY", 300)
    monkeypatch.setattr(materials, "TOKENS", 32)
    monkeypatch.setattr(materials, "ACTIVE_TERMS", 20)
    words = [f"word{number}" for number in range(40)]
    pairs = [(f"{word} question", " ".join(words[place:] + words[:place]) * 12) for place, word in enumerate(words)]
    texts = tmp_path / "pairs.json"
    texts.write_text(json.dumps(pairs), encoding="utf-8")
    model = materials.write_model(tmp_path, [text for pair in pairs for text in pair])
    monkeypatch.setattr(encode, "TEXTS", 4)
    measured = encode.worker("sparse_encoder", [str(model), str(texts), "float32"])
    assert measured["seconds"] > 0
    assert 1 < measured["active_terms"] < 100
    monkeypatch.setattr(train, "BATCH", 2)
    monkeypatch.setattr(train, "STEPS", 2)
    assert train.worker("sparse_encoder", [str(model), str(texts), str(tmp_path / "out")])["seconds"] > 0


def test_one_worker_of_sampling(load: object) -> None:
    worker = load("samplers").worker  # type: ignore[operator]
    measured = worker("sparse_encoder", ["40", "3", "hashed"])
    assert measured["first_s"] > 0
    assert measured["batches"] >= 4
    assert worker("sparse_encoder", ["40", "3", "plain"])["digest"] == measured["digest"]


def test_passes_of_every_sampler_are_held_against_the_clock(
    load: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = load("samplers")  # type: ignore[operator]
    measured = benchmark.worker("sparse_encoder", ["passes", "400"])
    samplers = {name for name in sparse_encoder.samplers.__all__ if name.endswith("BatchSampler")} - {
        "MultiDatasetDefaultBatchSampler"
    }
    assert len(measured) == len(samplers) + 1  # a second epoch
    assert all(seconds > 0 for seconds in measured.values())
    medians = {"sparse_encoder": {"fast": 1.2, "slow": 1.7}}
    monkeypatch.setattr(benchmark.harness, "alternate", lambda *_, **__: medians)
    report = benchmark.show_passes(500_000, 1)
    assert [each["met"] for each in report["ratios"].values()] == [True, False]
    assert "at most 1.5" in capsys.readouterr().out


def test_both_workers_of_cosent_find_the_same(load: object) -> None:
    worker = load("cosent").worker  # type: ignore[operator]
    ours, matrix = (worker(library, ["50", "1"]) for library in ("sparse_encoder", "sentence_transformers"))
    assert ours["loss"] == pytest.approx(matrix["loss"], rel=1e-5)
    assert ours["gradient"] == pytest.approx(matrix["gradient"], rel=1e-4)


def test_one_worker_of_evaluation(load: object, tmp_path: Path) -> None:
    load("search")  # type: ignore[operator]
    evaluation = load("retrieval_evaluation")  # type: ignore[operator]
    evaluation.write_collection(tmp_path, 60, 9)
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("Linux counts the memory")
    measured = evaluation.worker("sparse_encoder", [str(tmp_path)])
    assert measured["seconds"] > 0
    assert measured["dot_recall@10"] > 0.9  # half a query's terms are of its document
    assert 150 < measured["corpus_active_dims"] < 250
    assert measured["rows_bytes"] == 8 * round(60 * measured["corpus_active_dims"] + 9 * measured["query_active_dims"])


def test_both_workers_of_decoding_write_the_same(load: object, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    decoding = load("decoding")  # type: ignore[operator]
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1}
    decoding.CONFIG |= {**sizes, "num_attention_heads": 2, "num_key_value_heads": 2}
    folder = str(decoding.write_model(tmp_path / "model"))
    ours, theirs = (decoding.worker(name, [folder, "3", "9"]) for name in ("sparse_encoder", "sentence_transformers"))
    assert ours["checksum"] == theirs["checksum"] and ours["tokens_per_s"] > 0


def test_the_workers_of_encoding_through_onnx(
    load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    materials, benchmark = load("materials"), load("encode_onnx")  # type: ignore[operator]
    monkeypatch.setattr(materials, "VOCABULARY", 300)
    monkeypatch.setattr(materials, "TOKENS", 32)
    monkeypatch.setattr(materials, "ACTIVE_TERMS", 20)
    monkeypatch.setattr(benchmark, "TEXTS", 4)
    words = [f"word{number}" for number in range(40)]
    pairs = [(f"{word} question", " ".join(words[place:] + words[:place])) for place, word in enumerate(words)]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
    model = materials.write_model(tmp_path, [text for pair in pairs for text in pair])
    benchmark.write_graphs(model)
    vectors = {}
    for variant in benchmark.VARIANTS[:3]:
        assert benchmark.worker(variant, [str(model), str(tmp_path / "pairs.json"), str(tmp_path)])["seconds"] > 0
        vectors[variant] = np.load(tmp_path / f"{variant}.npy")
    quality = benchmark.compare(vectors["onnx"], vectors["sparse_encoder"], terms=5)
    assert quality["largest_difference"] < 1e-4 and quality["best_terms_kept"] > 0.9
    rough = benchmark.compare(vectors["onnx_int8"], vectors["sparse_encoder"], terms=5)
    assert 0.9 < rough["cosine"] < quality["cosine"] <= 1 + 1e-5
    ours, logits = benchmark.output_bytes(model, 16)
    assert (ours, logits) == (8 * 16 * 12, 8 * 32 * 300 * 4)
    assert benchmark.show_outputs(ours, logits)["ratios"]["bytes"]["met"]
    assert "met" in capsys.readouterr().out
