"""A local copy in NanoBEIR's layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from collections_helpers import DOCUMENTS, QRELS, QUERIES, write_lines

from sparse_encoder.checkpoint import LoadError
from sparse_encoder.evaluation.collections import Collection, load_collection

datasets = pytest.importorskip("datasets")
SPLIT = "NanoSmall"


def write_nano(folder: Path, judgements: list[dict[str, object]]) -> Path:
    tables = {
        "corpus": [{"_id": name, "text": text} for name, text in DOCUMENTS.items()],
        "queries": [{"_id": name, "text": text} for name, text in QUERIES.items()],
        "qrels": judgements,
    }
    for subset, rows in tables.items():
        (folder / subset).mkdir(parents=True)
        halves = [rows[:2], rows[2:]] if subset == "corpus" else [rows]
        for number, half in enumerate(halves):
            path = folder / subset / f"{SPLIT}-{number:05d}-of-{len(halves):05d}.parquet"
            datasets.Dataset.from_list(half).to_parquet(str(path))
    return folder


def test_parquet_files_as_on_the_hub(tmp_path: Path) -> None:
    pairs = [{"query-id": query, "corpus-id": name} for query, grades in QRELS.items() for name in grades]
    found = load_collection(write_nano(tmp_path, pairs), split=SPLIT)
    ones = {query: dict.fromkeys(grades, 1) for query, grades in QRELS.items()}
    assert found == Collection(name=SPLIT, corpus=DOCUMENTS, queries=QUERIES, qrels=ones, skip_own_id=True)
    assert load_collection(tmp_path).name == tmp_path.name
    with pytest.raises(FileNotFoundError, match=r"there is no split 'NanoNQ'; there are \['NanoSmall'\]"):
        load_collection(tmp_path, split="NanoNQ")


def test_lists_and_grades(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"query-id": "q1", "corpus-id": ["d1", "d2"], "score": 2}]
    assert load_collection(write_nano(tmp_path, rows)).qrels == {"q1": {"d1": 2, "d2": 2}}


def test_json_lines_in_place_of_parquet(tmp_path: Path) -> None:
    write_nano(tmp_path, [{"query-id": "q1", "corpus-id": "d1"}])
    for path in (tmp_path / "qrels").iterdir():
        path.unlink()
    write_lines(tmp_path / "qrels" / f"{SPLIT}.jsonl", ['{"query-id": "q2", "corpus-id": "d5"}'])
    assert load_collection(tmp_path).qrels == {"q2": {"d5": 1}}
    write_lines(tmp_path / "qrels" / f"{SPLIT}.jsonl", ['{"query-id": "q2", "corpus-id": [5]}'])
    with pytest.raises(LoadError, match="NanoSmall.jsonl:1: field 'corpus-id' must be a text or texts, got 5"):
        load_collection(tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_nano(tmp_path, [{"query-id": "q1", "corpus-id": "d1"}])
    (queries,) = (tmp_path / "queries").iterdir()
    queries.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(LoadError, match=r"NanoSmall-00000-of-00001.parquet: must be a parquet file"):
        load_collection(tmp_path)
    queries.unlink()
    with pytest.raises(FileNotFoundError, match=r"queries: there is no split 'NanoSmall'; there are \[\]"):
        load_collection(tmp_path)
