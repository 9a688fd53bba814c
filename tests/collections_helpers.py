"""A small collection, and the folders it can lie in."""

from __future__ import annotations

import json
from pathlib import Path

DOCUMENTS = {
    "d1": "the cat sat on the mat",
    "d2": "a dog chased the cat",
    "d3": "stocks fell on monday",
    "d4": "rain is expected tomorrow",
    "d5": "the dog sleeps on the mat",
}
QUERIES = {"q1": "cat on a mat", "q2": "weather tomorrow", "q3": "not judged"}
QRELS = {"q1": {"d1": 2, "d2": 1, "d3": 0}, "q2": {"d4": 1}}


def write_lines(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_beir(folder: Path, split: str = "test") -> Path:
    corpus = [
        {"_id": name, "title": text.split()[0], "text": text.partition(" ")[2]} for name, text in DOCUMENTS.items()
    ]
    write_lines(folder / "corpus.jsonl", [json.dumps(row) for row in corpus])
    queries = [{"_id": name, "text": text, "metadata": {}} for name, text in QUERIES.items()]
    write_lines(folder / "queries.jsonl", [json.dumps(row) for row in queries])
    judged = [f"{query}\t{name}\t{grade}" for query, grades in QRELS.items() for name, grade in grades.items()]
    write_lines(folder / "qrels" / f"{split}.tsv", ["query-id\tcorpus-id\tscore", *judged])
    return folder


def write_trec(folder: Path) -> Path:
    write_lines(folder / "collection.tsv", [f"{name}\t{text}" for name, text in DOCUMENTS.items()])
    write_lines(folder / "topics.tsv", [f"{name}\t{text}" for name, text in QUERIES.items()])
    judged = [f"{query} 0 {name} {grade}" for query, grades in QRELS.items() for name, grade in grades.items()]
    write_lines(folder / "qrels.txt", judged)
    return folder
