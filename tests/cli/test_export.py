"""``sparse-encoder export``: a folder that serves, what it costs to serve it in int8, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from model_helpers import write_masked_language_model

from sparse_encoder import SparseEncoder
from sparse_encoder.cli.main import main

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
TEXTS = ["rain on the river stone", "bread of flour and water", "a cat in the tree"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masked_language_model(tmp_path_factory.mktemp("export") / "model")


def test_a_model_is_exported_and_measured_in_int8(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts").write_text("\n".join(TEXTS) + "\n\n", encoding="utf-8-sig")
    output = tmp_path / "served"
    assert main(["export", str(model), str(output), "--int8", "--texts", str(tmp_path / "texts")]) == 0
    told = capsys.readouterr().out
    assert f"{output / 'onnx' / 'model.onnx'}: opset 20" in told and "off the model" in told
    (quantised,) = [name for name in os.listdir(output / "onnx") if "int8" in name]
    assert quantised in told
    expected = SparseEncoder(str(model), device="cpu").encode(TEXTS).to_dense()
    found = SparseEncoder(str(output), backend="onnx").encode(TEXTS)
    assert abs(found.to_scipy().todense() - expected.numpy()).max() < 1e-4


def test_the_best_terms_and_another_opset(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(model), str(tmp_path), "--top-k", "5", "--opset", "18"]) == 0
    assert "opset 18" in capsys.readouterr().out
    expected = SparseEncoder(str(model), device="cpu").encode(TEXTS, max_active_dims=5).to_dense()
    found = SparseEncoder(str(tmp_path), backend="onnx").encode(TEXTS)
    assert abs(found.to_scipy().todense() - expected.numpy()).max() < 1e-4
    assert max(map(len, found.to_list_of_dicts())) == 5


def test_what_cannot_be_exported_is_said(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "blank").write_text("\n \n")
    (tmp_path / "latin").write_bytes(b"\xe9t\xe9")
    rows = {
        "top_k must be": ["--top-k", "0"],
        "opset": ["--opset", "11"],
        "give both, or none": ["--texts", str(tmp_path / "blank")],
        "has no texts": ["--int8", "--texts", str(tmp_path / "blank")],
        "must be UTF-8": ["--int8", "--texts", str(tmp_path / "latin")],
    }
    for says, options in rows.items():
        assert main(["export", str(model), str(tmp_path / "out"), *options]) == 2, options
        assert says in capsys.readouterr().err
    assert main(["export", str(model), str(tmp_path / "blank" / "out")]) == 2
    assert "choose another OUTPUT" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
