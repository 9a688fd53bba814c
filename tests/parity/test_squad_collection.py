"""Real questions and paragraphs: from a BEIR folder to a run file, and the figures that ir_measures finds in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from collections_helpers import write_lines
from fixture_files import fixture_path

from sparse_encoder.cli.main import main

ir_measures = pytest.importorskip("ir_measures")
NUM_QUESTIONS = 600


def write_squad(folder: Path) -> Path:
    source = json.loads((fixture_path("squad") / "squad.json").read_text(encoding="utf-8"))
    documents, queries, judged = [], [], ["query-id\tcorpus-id\tscore"]
    for article in source["data"]:
        for paragraph in article["paragraphs"]:
            name = f"p{len(documents)}"
            documents.append(json.dumps({"_id": name, "title": article["title"], "text": paragraph["context"]}))
            for question in paragraph["qas"]:
                if not question["is_impossible"]:
                    queries.append(json.dumps({"_id": question["id"], "text": question["question"]}))
                    judged.append(f"{question['id']}\t{name}\t1")
    write_lines(folder / "corpus.jsonl", documents)
    write_lines(folder / "queries.jsonl", queries)
    write_lines(folder / "qrels" / "test.tsv", [judged[0], *judged[1 :: len(judged) // NUM_QUESTIONS]])
    return folder


@pytest.mark.fixture
def test_bm25_on_squad_has_the_figures_that_ir_measures_finds(tmp_path: Path) -> None:
    folder = write_squad(tmp_path / "squad")
    assert main(["evaluate", "bm25", str(folder), "--output", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    lines = (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]
    qrels = [ir_measures.Qrel(query, name, int(grade)) for query, name, grade in (line.split("\t") for line in lines)]
    run = ir_measures.read_trec_run(str(tmp_path / "out" / "run.trec"))
    names = {"nDCG@10": "nDCG@10", "RR@10": "MRR@10", "R@100": "Recall@100", "R@1000": "Recall@1000", "AP": "MAP"}
    theirs = ir_measures.calc_aggregate([ir_measures.parse_measure(name) for name in (*names, "Rprec")], qrels, run)
    expected = {{**names, "Rprec": "R-precision"}[str(measure)]: value for measure, value in theirs.items()}
    assert results["metrics"] == pytest.approx(expected, abs=1e-9)
    assert results["metrics"]["nDCG@10"] > 0.8  # the paragraphs are few and their words are the questions'
