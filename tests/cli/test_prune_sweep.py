"""``sparse-encoder prune-sweep``: one table and one plot, encoding once."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from collections_helpers import write_beir
from model_helpers import write_masked_language_model

from sparse_encoder import SparseEncoder
from sparse_encoder.cli.main import main


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    write_beir(folder / "small")
    write_masked_language_model(folder / "model")
    return folder


def prune_sweep(place: Path, *options: str) -> int:
    return main(["prune-sweep", str(place / "model"), str(place / "small"), *options])


def test_tables_without_a_plot(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    encode = SparseEncoder.encode_document
    monkeypatch.setattr(
        SparseEncoder,
        "encode_document",
        lambda self, texts, **options: calls.append(texts) or encode(self, texts, **options),
    )
    options = ["--prunings", "none", "top_k=3", "uint8", "top_k=3+uint8", "--no-plot", "--output", str(tmp_path)]
    assert prune_sweep(place, *options) == 0
    assert len(calls) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep.csv", "sweep.json", "sweep.md"]
    found = json.loads((tmp_path / "sweep.json").read_text())
    rows = {row["pruning"]: row for row in found["rows"]}
    assert list(rows) == ["none", "top_k=3", "uint8", "top_k=3+uint8"]
    assert found["side"] == "documents"
    assert rows["top_k=3"]["num_postings"] == rows["top_k=3+uint8"]["num_postings"] == 15
    assert rows["top_k=3"]["index_megabytes"] > rows["top_k=3+uint8"]["index_megabytes"]
    assert rows["none"]["postings_per_query"] > rows["top_k=3"]["postings_per_query"]
    with (tmp_path / "sweep.csv").open() as file:
        assert [row["pruning"] for row in csv.DictReader(file)] == list(rows)
    table = (tmp_path / "sweep.md").read_text().split("\n\n", 1)[1]
    assert table.strip() in capsys.readouterr().out
    (tmp_path / "sweep.png").write_bytes(b"of an earlier sweep")
    assert prune_sweep(place, *options, "--side", "both") == 0  # which is replaced
    assert not (tmp_path / "sweep.png").exists()
    assert json.loads((tmp_path / "sweep.json").read_text())["rows"][1]["query_terms"] == 3.0


def test_the_default_prunings_and_a_plot(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert prune_sweep(place, "--output", str(tmp_path / "out")) == 0
    assert (tmp_path / "out" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "out" / "sweep.json").read_text())["rows"]) == 24


def test_metrics_and_prunings_that_are_asked_for_each_once(place: Path, tmp_path: Path) -> None:
    asked = ["--metrics", "P@1", "MAP", "P@1", "--prunings", "none", "top_k=3", "none", "top_k=3.0", "--no-plot"]
    assert prune_sweep(place, *asked, "--output", str(tmp_path)) == 0
    rows = json.loads((tmp_path / "sweep.json").read_text())["rows"]
    assert [row["pruning"] for row in rows] == ["none", "top_k=3"]
    assert list(rows[0])[:4] == ["pruning", "P@1", "MAP", "query_terms"]


def test_mistakes_are_told_before_the_work(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SparseEncoder, "encode_document", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert prune_sweep(place, "--output", str(tmp_path / "out")) == 2
    assert "a plot needs matplotlib: pip install 'sparse-encoder[plot]'" in capsys.readouterr().err
    assert prune_sweep(place, "--prunings", "top_k=0") == 2
    assert "k must be at least 1, got 0" in capsys.readouterr().err
    assert prune_sweep(place, "--prunings", "half") == 2
    assert "a pruning is none, uint8 or NAME=NUMBER" in capsys.readouterr().err
    assert prune_sweep(place, "--side", "left") == 2
    capsys.readouterr()
    assert prune_sweep(place, "--metrics", "nDCG@10", "ndcg@10") == 2
    assert "unknown metric 'ndcg@10'" in capsys.readouterr().err
    assert prune_sweep(place, "--metrics", "P@1", "MAP", "--metric", "nDCG@10") == 2
    assert "--metric must be one of --metrics ['P@1', 'MAP'], got 'nDCG@10'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
