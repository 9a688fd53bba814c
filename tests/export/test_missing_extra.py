"""Without a package of the extra: an error that says what to install, before anything is done."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from export_helpers import tiny_encoder, tiny_language_model

from sparse_encoder.checkpoint.onnx_packages import PACKAGES, first_line
from sparse_encoder.export import export_onnx
from sparse_encoder.export.extra import require


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_named_with_its_extra(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"needs {name}: pip install 'sparse-encoder\[onnx\]'"):
        export_onnx(tiny_language_model(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ImportError, match=r"pip install 'sparse-encoder\[onnx\]'"):
        require(name)


def test_the_method_of_an_encoder_tells_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_encoder(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'sparse-encoder\[onnx\]'"):
        model.export_onnx(tmp_path / "out")
    with pytest.raises(ValueError, match="path must be a folder, got the file"):
        model.export_onnx(tmp_path / "model.onnx")
    assert not (tmp_path / "out").exists()


def test_an_error_is_told_by_its_first_line() -> None:
    assert first_line(RuntimeError("the node fails\n#0 a.cc\n#1 b.cc")) == "the node fails"
    assert first_line(RuntimeError("a" * 1000)) == "a" * 300
    assert first_line(UnboundLocalError()) == "UnboundLocalError"
