"""Collections by their ir_datasets id: with the package itself, and with a fake of what it offers."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from collections_helpers import DOCUMENTS, QRELS, QUERIES, write_trec

from sparse_encoder.evaluation.collections import Collection, load_collection


class Row(NamedTuple):
    doc_id: str = ""
    query_id: str = ""
    text: str = ""
    relevance: int = 0

    def default_text(self) -> str:
        return self.text


class FakeDataset:
    def __init__(self, qrels: list[Row], missing: str = "") -> None:
        self.qrels = qrels
        self.missing = missing

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (has_docs and so on)
        if not name.startswith("has_"):
            raise AttributeError(name)
        return lambda: name != f"has_{self.missing}"

    def docs_iter(self) -> list[Row]:
        return [Row(doc_id=name, text=text) for name, text in DOCUMENTS.items()]

    def queries_iter(self) -> list[Row]:
        return [Row(query_id=name, text=text) for name, text in QUERIES.items()]

    def qrels_iter(self) -> list[Row]:
        return self.qrels


JUDGED = [
    Row(query_id=query, doc_id=name, relevance=grade)
    for query, grades in QRELS.items()
    for name, grade in grades.items()
]


def serve(monkeypatch: pytest.MonkeyPatch, **known: FakeDataset) -> None:
    monkeypatch.setitem(sys.modules, "ir_datasets", SimpleNamespace(load=lambda name: known[name.replace("/", "_")]))


def test_a_collection_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, beir_small=FakeDataset(JUDGED), ms_small=FakeDataset(JUDGED))
    whole = {"corpus": DOCUMENTS, "queries": QUERIES, "qrels": QRELS}
    assert load_collection("ms/small") == Collection(name="ms/small", **whole)
    assert load_collection("beir/small") == Collection(name="beir/small", skip_own_id=True, **whole)


def test_what_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [Row(query_id="q1", doc_id="d1", relevance=1), Row(query_id="q1", doc_id="d1", relevance=2)]
    serve(monkeypatch, lacks=FakeDataset(JUDGED, "qrels"), twice=FakeDataset(twice))
    with pytest.raises(ValueError, match="'lacks' of ir_datasets has no qrels"):
        load_collection("lacks")
    with pytest.raises(ValueError, match="'twice' of ir_datasets judges 'd1' twice for query 'q1'"):
        load_collection("twice")
    with pytest.raises(ValueError, match="'no/such' is neither a folder nor an id that ir_datasets knows"):
        load_collection("no/such")


def test_data_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = FakeDataset(JUDGED)
    monkeypatch.setattr(
        dataset, "docs_iter", lambda: (_ for _ in ()).throw(ConnectionError("no network")), raising=False
    )
    serve(monkeypatch, far=dataset)
    with pytest.raises(FileNotFoundError, match="ir_datasets cannot get 'far': no network"):
        load_collection("far")


def test_the_package_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path / "home"))
    ir_datasets = pytest.importorskip("ir_datasets")
    write_trec(tmp_path)
    dataset = ir_datasets.create_dataset(
        docs_tsv=str(tmp_path / "collection.tsv"),
        queries_tsv=str(tmp_path / "topics.tsv"),
        qrels_trec=str(tmp_path / "qrels.txt"),
    )
    ir_datasets.registry.register("sparse-encoder-test/small", dataset)
    found = load_collection("sparse-encoder-test/small")
    assert found == Collection(name="sparse-encoder-test/small", corpus=DOCUMENTS, queries=QUERIES, qrels=QRELS)
    with pytest.raises(ValueError, match="neither a folder nor an id"):
        load_collection("sparse-encoder-test/none")
