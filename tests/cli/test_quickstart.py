from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sparse_encoder import SparseEncoder, SparseIndex, __version__
from sparse_encoder.cli.main import main

KEYS = {"ndcg@10", "mrr@10", "recall@100", "query_terms", "document_terms", "ms_per_query"}
SMALL = ["--packages", "numpy", "--documents", "150", "--questions", "30", "--epochs", "1", "--batch-size", "30"]


def quickstart(folder: Path, *options: str) -> int:
    return main(["quickstart", "--output", str(folder), *options])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    assert quickstart(folder / "run", "--json", str(folder / "new" / "table.json"), *SMALL) == 0
    return folder


@pytest.mark.slow
def test_it_measures_saves_and_writes_the_table(finished: Path) -> None:
    table = json.loads((finished / "new" / "table.json").read_text(encoding="utf-8"))
    assert set(table) == {"bm25", "before", "after"}
    for figures in table.values():
        assert set(figures) == KEYS
        assert 0.2 < figures["ndcg@10"] <= 1
        assert figures["query_terms"] > 1
    model, index = SparseEncoder(str(finished / "run" / "model")), SparseIndex.load(finished / "run" / "index")
    assert len(index) == 150
    assert index.search(model.encode_query("sort an array"), top_k=3, fingerprint=model.fingerprint)[0]


@pytest.mark.slow
def test_it_shows_answers_and_what_expansion_added(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quickstart(tmp_path / "run", *SMALL) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^BM25 +0\.\d{3} ", shown, flags=re.MULTILINE)
    assert shown.count("added by expansion:") == 3
    assert "Search the docstrings" not in shown  # no terminal, no prompt


@pytest.mark.slow
def test_an_output_that_is_taken_is_left_alone(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "run").rglob("*")}
    assert quickstart(finished / "run", *SMALL) == 2
    assert str(finished / "run") in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in (finished / "run").rglob("*")}


def test_too_few_questions_are_a_mistake_of_the_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quickstart(tmp_path / "run", "--packages", "json", "--questions", "500") == 2
    assert "too few" in capsys.readouterr().err


def test_a_package_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quickstart(tmp_path / "run", "--packages", "no_such_package") == 2
    assert "no_such_package" in capsys.readouterr().err


def test_a_table_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for path, reason in (
        (tmp_path / "folder", "folder is a folder; --json needs the name of a file"),
        (tmp_path / "file" / "table.json", "file is no folder; choose another --json"),
        (tmp_path / "file" / "deep" / "table.json", "file is no folder; choose another --json"),
    ):
        assert quickstart(tmp_path / "run", "--json", str(path), *SMALL) == 2
        assert reason in capsys.readouterr().err
    monkeypatch.setattr("sparse_encoder.cli.places.os.access", lambda path, mode: False)  # root may write anywhere
    assert quickstart(tmp_path / "run", "--json", str(tmp_path / "file"), *SMALL) == 2
    assert "file cannot be written over; choose another --json" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]  # nothing was begun


def test_the_command_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"sparse-encoder {__version__}"
