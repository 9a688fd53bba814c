"""Collections out of the folders they come in, and what is refused."""

from __future__ import annotations

import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from collections_helpers import DOCUMENTS, QRELS, QUERIES, write_beir, write_lines, write_trec

from sparse_encoder.checkpoint import LoadError
from sparse_encoder.evaluation.collections import Collection, load_collection


def test_a_beir_folder(tmp_path: Path) -> None:
    found = load_collection(write_beir(tmp_path / "small"))
    assert found == Collection(name="small", corpus=DOCUMENTS, queries=QUERIES, qrels=QRELS, skip_own_id=True)
    assert found.judged_queries == {"q1": QUERIES["q1"], "q2": QUERIES["q2"]}


def test_a_beir_folder_with_another_split_and_compressed_files(tmp_path: Path) -> None:
    write_beir(tmp_path, split="dev")
    corpus = tmp_path / "corpus.jsonl"
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(corpus.read_bytes()))
    corpus.unlink()
    assert load_collection(tmp_path, split="dev").corpus == DOCUMENTS
    with pytest.raises(FileNotFoundError, match=r"there is no split 'test'; there are \['dev'\]"):
        load_collection(tmp_path)


@pytest.mark.parametrize(
    ("file", "line", "reason"),
    [
        ("corpus.jsonl", "{", r"corpus.jsonl:6: must be one JSON object"),
        ("corpus.jsonl", "[1]", r"corpus.jsonl:6: must be one JSON object, got list"),
        ("corpus.jsonl", '{"text": "x"}', r"corpus.jsonl:6: must have the field '_id' or 'id'"),
        ("corpus.jsonl", '{"_id": "d9"}', r"corpus.jsonl:6: must have the field 'text' or"),
        ("corpus.jsonl", '{"_id": "d9", "text": null}', r"corpus.jsonl:6: field 'text' must be a text, got NoneType"),
        ("corpus.jsonl", '{"_id": 1.5, "text": ""}', r"corpus.jsonl:6: field '_id' must be a text, got float"),
        ("corpus.jsonl", "1" * 5000, r"corpus.jsonl:6: must be one JSON object"),
        ("corpus.jsonl", "[" * 100_000, r"corpus.jsonl:6: must be one JSON object"),
        ("corpus.jsonl", r'{"_id": "d9", "text": "\ud83d"}', r"corpus.jsonl:6: field 'text' holds half of a surrogate"),
        ("corpus.jsonl", '{"_id": "", "text": ""}', r"corpus.jsonl:6: the id must not be empty"),
        ("corpus.jsonl", '{"_id": "d1", "text": "x"}', r"corpus.jsonl:6: the id 'd1' is there twice"),
        ("queries.jsonl", '{"_id": "q1", "text": "x"}', r"queries.jsonl:4: the id 'q1' is there twice"),
        ("qrels/test.tsv", "q1 d5 1", r"test.tsv:6: must have the three fields"),
        ("qrels/test.tsv", "q1\td5\tyes", r"test.tsv:6: the grade must be an integer, got 'yes'"),
        ("qrels/test.tsv", "q1\td1\t1", r"test.tsv:6: document 'd1' is judged twice for query 'q1'"),
    ],
)
def test_a_damaged_beir_folder_names_file_and_line(tmp_path: Path, file: str, line: str, reason: str) -> None:
    write_beir(tmp_path)
    with (tmp_path / file).open("a", encoding="utf-8") as opened:
        opened.write(line + "\n")
    with pytest.raises(LoadError, match=reason):
        load_collection(tmp_path)


def test_judgements_must_have_their_header(tmp_path: Path) -> None:
    write_beir(tmp_path)
    write_lines(tmp_path / "qrels" / "test.tsv", ["q1\td1\t1"])
    with pytest.raises(LoadError, match=r"test.tsv:1: the first line must be \['query-id', 'corpus-id', 'score'\]"):
        load_collection(tmp_path)


def test_a_title_comes_before_the_text(tmp_path: Path) -> None:
    write_beir(tmp_path)
    rows = [{"_id": "d1", "title": "A", "text": "b"}, {"_id": "d2", "title": "", "text": "c"}, {"_id": 3, "title": "D"}]
    write_lines(tmp_path / "corpus.jsonl", [json.dumps(row) for row in rows])
    assert load_collection(tmp_path, allow_unknown=True).corpus == {"d1": "A b", "d2": "c", "3": "D"}


def test_judgements_of_unknown_ids(tmp_path: Path) -> None:
    write_beir(tmp_path)
    with (tmp_path / "qrels" / "test.tsv").open("a") as file:
        file.write("q1\tlost\t1\n")
    with pytest.raises(ValueError, match="qrels of query 'q1' name the unknown document 'lost'; allow_unknown=True"):
        load_collection(tmp_path)
    assert load_collection(tmp_path, allow_unknown=True).qrels["q1"]["lost"] == 1
    write_beir(tmp_path)
    with (tmp_path / "qrels" / "test.tsv").open("a") as file:
        file.write("q7\td1\t1\n")
    with pytest.raises(ValueError, match="name the unknown query 'q7'; allow_unknown=True"):
        load_collection(tmp_path)
    assert list(load_collection(tmp_path, allow_unknown=True).qrels) == ["q1", "q2"]  # q7 cannot be asked


def test_queries_without_grades_are_not_judged_and_those_without_relevant_documents_are() -> None:
    found = Collection(name="small", corpus=DOCUMENTS, queries=QUERIES, qrels={"q1": {}, "q2": {"d4": 0}})
    assert list(found.qrels) == list(found.judged_queries) == ["q2"]
    with pytest.raises(ValueError, match="collection 'small' has no judgements for any of its queries"):
        Collection(name="small", corpus=DOCUMENTS, queries=QUERIES, qrels={"q1": {}})


@pytest.mark.parametrize("what", ["corpus", "queries", "qrels"])
def test_nothing_to_measure(what: str) -> None:
    whole = Collection(name="small", corpus=DOCUMENTS, queries=QUERIES, qrels=QRELS)
    with pytest.raises(ValueError, match=f"collection 'small' has an empty {what}"):
        replace(whole, **{what: {}})


def test_a_trec_folder(tmp_path: Path) -> None:
    found = load_collection(write_trec(tmp_path / "small"))
    assert found == Collection(name="small", corpus=DOCUMENTS, queries=QUERIES, qrels=QRELS)
    assert not found.skip_own_id  # of numbered ids equal ones mean nothing


def test_a_trec_folder_with_splits_and_files_for_all_of_them(tmp_path: Path) -> None:
    write_trec(tmp_path)
    for split in ("dev.small", "test"):
        (tmp_path / f"qrels.{split}.tsv").write_bytes((tmp_path / "qrels.txt").read_bytes())
    (tmp_path / "qrels.txt").unlink()
    (tmp_path / "qrels.test.tsv").write_text("q2 0 d4 1\n")
    found = load_collection(tmp_path, split="test")
    assert found.qrels == {"q2": {"d4": 1}}
    assert found.name == f"{tmp_path.name}/test"
    assert load_collection(tmp_path, split="dev.small").qrels == QRELS
    with pytest.raises(FileNotFoundError, match=r"choose a split; there are \['dev.small', 'test'\]"):
        load_collection(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no split 'train'"):
        load_collection(tmp_path, split="train")
    (tmp_path / "collection.tsv").rename(tmp_path / "texts.tsv")
    with pytest.raises(
        FileNotFoundError, match=r"there is no file of documents, named documents\.\* or collection\.\*"
    ):
        load_collection(tmp_path, split="test")


def test_two_files_that_could_be_meant(tmp_path: Path) -> None:
    write_trec(tmp_path)
    write_lines(tmp_path / "corpus.jsonl.old", [])  # neither: the split is "jsonl"
    write_lines(tmp_path / "documents.tsv", ["d1\tx"])
    with pytest.raises(LoadError, match=r"documents.tsv: could be the documents, but so could collection.tsv"):
        load_collection(tmp_path)


def test_no_folder_and_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(LoadError, match="empty: holds no collection: BEIR has"):
        load_collection(tmp_path / "empty")
    with pytest.raises(LoadError, match="this is a file"):
        load_collection(write_lines(tmp_path / "file", []))
    with pytest.raises(ValueError, match="ids name their split themselves"):
        load_collection("beir/scifact", split="test")
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(ImportError, match=r"no folder 'beir/scifact'.*pip install 'sparse-encoder\[ir\]'"):
        load_collection("beir/scifact")
