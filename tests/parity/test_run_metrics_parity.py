"""Runs with ties, measured and read as ir_measures and trec_eval do."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sparse_encoder.evaluation.run_metrics import measure_run
from sparse_encoder.evaluation.trec_files import Qrels, Run, read_qrels, read_run, write_qrels, write_run

ir_measures = pytest.importorskip("ir_measures")
NAMES = {
    "nDCG@3": "nDCG@3",
    "nDCG@10": "nDCG@10",
    "MRR@10": "RR@10",
    "Recall@5": "R@5",
    "Recall@100": "R@100",
    "Recall@1000": "R@1000",
    "P@7": "P@7",
    "MAP": "AP",
    "R-precision": "Rprec",
}


def random_run(seed: int) -> tuple[Run, Qrels]:
    """Make scores of few different values, grades from -1 to 3, and queries that one of the two lacks."""
    draw = random.Random(seed)
    documents = [f"d{number}" for number in range(40)]
    run: Run = {}
    qrels: Qrels = {}
    for number in range(12):
        found = draw.sample(documents, draw.randint(1, 30))
        run[f"q{number}"] = {document: draw.choice([0.5, 1.0, 1.25, 2.0, draw.random()]) for document in found}
        judged = draw.sample(documents, draw.randint(1, 25))
        qrels[f"q{number + 1}"] = {document: draw.choice([-1, 0, 0, 1, 1, 2, 3]) for document in judged}
    qrels["q3"] = {"d1": 0, "d2": 0}
    return run, qrels


def oracle(run: object, qrels: object) -> dict[tuple[str, str], float]:
    names = {str(ir_measures.parse_measure(theirs)): ours for ours, theirs in NAMES.items()}
    measures = [ir_measures.parse_measure(name) for name in NAMES.values()]
    return {
        (names[str(found.measure)], found.query_id): found.value
        for found in ir_measures.iter_calc(measures, qrels, run)
    }


@pytest.mark.parametrize("seed", range(8))
def test_every_value_of_every_query_is_that_of_ir_measures(seed: int) -> None:
    run, qrels = random_run(seed)
    ours = measure_run(run, qrels, NAMES)
    flat = {(name, query): value for name, values in ours.items() for query, value in values.items()}
    assert flat == pytest.approx(oracle(run, qrels), abs=1e-9)
    assert len(flat) == len(NAMES) * len(qrels)


def test_scores_that_are_equal_in_float32_are_equal() -> None:
    run, qrels = {"q": {"a": 0.1 + 0.2, "b": 0.3}}, {"q": {"a": 1}}
    assert measure_run(run, qrels, ["MAP"])["MAP"]["q"] == oracle(run, qrels)["MAP", "q"] == 0.5


def test_files_say_the_same_to_both(tmp_path: Path) -> None:
    run, qrels = random_run(9)
    write_run(tmp_path / "run.trec", run)
    write_qrels(tmp_path / "qrels.trec", qrels)
    theirs = list(ir_measures.read_trec_run(str(tmp_path / "run.trec")))
    assert {(hit.query_id, hit.doc_id): hit.score for hit in theirs} == {
        (query, document): score for query, scores in run.items() for document, score in scores.items()
    }
    judged = list(ir_measures.read_trec_qrels(str(tmp_path / "qrels.trec")))
    assert oracle(theirs, judged) == oracle(run, qrels)
    assert read_run(tmp_path / "run.trec") == run
    assert read_qrels(tmp_path / "qrels.trec") == qrels
