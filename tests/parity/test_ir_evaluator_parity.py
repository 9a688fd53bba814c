"""Every metric, column and prediction of the retrieval evaluator against sentence-transformers'."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_helpers import GivenModel, random_model
from peer_evaluator_helpers import Card
from torch import Tensor

from sparse_encoder.evaluation import SparseInformationRetrievalEvaluator

peers = pytest.importorskip("sentence_transformers.sparse_encoder.evaluation")
peer_models = pytest.importorskip("sentence_transformers.sparse_encoder")
utilities = pytest.importorskip("sentence_transformers.util")

pytestmark = pytest.mark.filterwarnings(  # the peer makes torch say these, once a process
    "ignore:Sparse CSR tensor support:UserWarning", "ignore:Sparse invariant checks:UserWarning"
)

QUERIES = {f"q{number}": f"query {number}" for number in range(25)}
CORPUS = {f"d{number * 11 % 130}": f"document {number}" for number in range(130)}


class PeerModel:
    """The same rows as torch sparse tensors, with what the peer's evaluator asks for."""

    def __init__(self, model: GivenModel) -> None:
        self.model = model
        self.similarity_fn_name = model.similarity_fn_name
        self.similarity = peers_similarity(model.similarity_fn_name)
        self.model_card_data = Card()

    def encode_query(self, texts: list[str], **options: object) -> Tensor:
        return self._encode(texts, options)

    def encode_document(self, texts: list[str], **options: object) -> Tensor:
        return self._encode(texts, options)

    def _encode(self, texts: list[str], options: dict[str, Any]) -> Tensor:
        rows = torch.stack([self.model.rows[text] for text in texts])
        if options["max_active_dims"] is not None:
            rows = utilities.select_max_active_dims(rows, options["max_active_dims"])
        return rows.to_sparse()

    @staticmethod
    def sparsity(embeddings: Tensor) -> dict[str, float]:
        sparsity: dict[str, float] = peer_models.SparseEncoder.sparsity(embeddings)
        return sparsity


def peers_similarity(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    function: Callable[[Tensor, Tensor], Tensor] = utilities.SimilarityFunction.to_similarity_fn(name)
    return function


ours_with_unknown = partial(SparseInformationRetrievalEvaluator, allow_unknown=True)
ADDED = ["postings_per_query", "milliseconds_per_query"]
"""Metrics that the peer does not have."""


def relevant_docs() -> dict[str, set[str]]:
    """Give most queries a few relevant documents, some of them not in the corpus."""
    generator = torch.Generator().manual_seed(3)
    counts = torch.randint(0, 6, (len(QUERIES),), generator=generator).tolist()
    return {
        query: {f"d{pick}" for pick in torch.randint(0, 140, (count,), generator=generator).tolist()}
        for query, count in zip(QUERIES, counts, strict=True)
    }


def without_costs(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.endswith(tuple(ADDED))}


def table(path: Path) -> tuple[list[str], list[list[float]]]:
    with path.open(newline="", encoding="utf-8") as file:
        headers, *rows = csv.reader(file)
    return headers, [[float(value) for value in row] for row in rows]


CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "a name and small chunks": {"name": "dev", "corpus_chunk_size": 7},
    "many ranks": {
        "mrr_at_k": [1, 5, 200],
        "ndcg_at_k": [3, 10, 200],
        "accuracy_at_k": [2],
        "precision_recall_at_k": [7, 150],
        "map_at_k": [1, 20],
    },
    "few terms": {"max_active_dims": 2, "corpus_chunk_size": 50},
    "predictions": {"write_predictions": True, "name": "x", "map_at_k": [12]},
    "no table": {"write_csv": False},
}


@pytest.mark.parametrize("density", [0.03, 0.3], ids=["rare", "common"])  # rare: most documents score 0
@pytest.mark.parametrize("similarity", ["dot", "cosine", "euclidean"])
@pytest.mark.parametrize("case", CASES)
def test_same_metrics_tables_and_predictions(case: str, similarity: str, density: float, tmp_path: Path) -> None:
    model = random_model([*QUERIES.values(), *CORPUS.values()], seed=1, density=density, similarity_fn_name=similarity)
    if similarity != "cosine":  # sums are exact, scores often equal; cosines that should be equal differ by rounding
        model.rows = {text: (row * 4).ceil() / 4 for text, row in model.rows.items()}
    kinds = peers.SparseInformationRetrievalEvaluator, ours_with_unknown
    evaluators = [kind(QUERIES, CORPUS, relevant_docs(), **CASES[case]) for kind in kinds]
    folders = tmp_path / "peer", tmp_path / "ours"
    models = PeerModel(model), model
    expected, found = (
        [evaluator(each, str(folder), epoch, 10 * epoch) for epoch in (1, 2)]
        for evaluator, each, folder in zip(evaluators, models, folders, strict=True)
    )
    for ours, theirs in zip(found, expected, strict=True):
        prefix = f"{evaluators[1].name}_" if evaluators[1].name else ""
        assert list(ours) == [*theirs, *(f"{prefix}{name}" for name in ADDED)]
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs, rel=1e-6, abs=1e-9)
    assert evaluators[1].primary_metric == evaluators[0].primary_metric
    assert evaluators[1].description == evaluators[0].description
    assert evaluators[1].get_config_dict() == evaluators[0].get_config_dict()
    names = sorted(path.name for path in folders[0].iterdir()) if folders[0].exists() else []
    assert names == (sorted(path.name for path in folders[1].iterdir()) if folders[1].exists() else [])
    for name in names:
        assert_same_file(folders[1] / name, folders[0] / name)


def assert_same_file(ours: Path, theirs: Path) -> None:
    if ours.suffix == ".csv":
        assert table(ours)[0] == table(theirs)[0]
        for our_row, their_row in zip(table(ours)[1], table(theirs)[1], strict=True):
            assert our_row == pytest.approx(their_row, rel=1e-6)
        return
    our_lines, their_lines = ([json.loads(line) for line in path.read_text().splitlines()] for path in (ours, theirs))
    for line, expected in zip(our_lines, their_lines, strict=True):
        assert line.keys() == expected.keys()
        assert (line["query_id"], line["query"]) == (expected["query_id"], expected["query"])
        assert [hit["corpus_id"] for hit in line["results"]] == [hit["corpus_id"] for hit in expected["results"]]
        scores = [hit["score"] for hit in expected["results"]]
        assert [hit["score"] for hit in line["results"]] == pytest.approx(scores, rel=1e-5, abs=1e-5)


def test_several_score_functions() -> None:
    model = random_model([*QUERIES.values(), *CORPUS.values()], seed=1)
    functions = {name: peers_similarity(name) for name in ("dot", "cosine", "manhattan")}
    for main in (None, "manhattan"):
        ours, theirs = (
            kind(QUERIES, CORPUS, relevant_docs(), score_functions=functions, main_score_function=main, name="dev")
            for kind in (ours_with_unknown, peers.SparseInformationRetrievalEvaluator)
        )
        assert without_costs(ours(model)) == pytest.approx(theirs(PeerModel(model)), rel=1e-6, abs=1e-9)
        assert ours.primary_metric == theirs.primary_metric


def test_an_encoded_corpus_and_the_card() -> None:
    model = random_model([*QUERIES.values(), *CORPUS.values()], seed=2)
    embeddings = torch.stack([model.rows[text] for text in CORPUS.values()]).to_sparse().coalesce()
    ours, theirs = (
        kind(QUERIES, CORPUS, relevant_docs(), corpus_chunk_size=40)
        for kind in (ours_with_unknown, peers.SparseInformationRetrievalEvaluator)
    )
    peer_model = PeerModel(model)
    expected = theirs(peer_model, corpus_embeddings=embeddings)
    model.model_card_data = Card()  # type: ignore[attr-defined]
    found = ours(model, corpus_embeddings=embeddings)
    assert without_costs(found) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert without_costs(ours(peer_model)) == pytest.approx(
        expected, rel=1e-6, abs=1e-9
    )  # torch tensors of a peer's model
    assert model.model_card_data.metrics == pytest.approx(peer_model.model_card_data.metrics)  # type: ignore[attr-defined]


def test_graded_searches_are_measured_as_by_ir_measures() -> None:
    ir_measures = pytest.importorskip("ir_measures")
    model = random_model([*QUERIES.values(), *CORPUS.values()], seed=4)
    generator = torch.Generator().manual_seed(5)
    qrels = {
        query: {f"d{pick}": int(grade) for pick, grade in torch.randint(0, 130, (6, 2), generator=generator).tolist()}
        for query in QUERIES
    }
    qrels = {query: {doc: grade % 4 for doc, grade in grades.items()} for query, grades in qrels.items()}
    qrels = {query: grades for query, grades in qrels.items() if any(grades.values())}
    evaluator = SparseInformationRetrievalEvaluator(
        QUERIES, CORPUS, qrels, ndcg_at_k=[5, 10], precision_recall_at_k=[5, 100, 1000], mrr_at_k=[10, 1000]
    )
    found, run = evaluator(model), evaluator.search(model)["dot"]
    ranks = {  # equal scores are ordered as here, by rising id
        query: {doc: float(-rank) for rank, doc in enumerate(scores)} for query, scores in run.items()
    }
    names = {
        **{f"nDCG@{k}": f"dot_ndcg@{k}" for k in (5, 10)},
        **{f"P@{k}": f"dot_precision@{k}" for k in (5, 100)},
        **{f"R@{k}": f"dot_recall@{k}" for k in (5, 100, 1000)},
        **{f"RR@{k}": f"dot_mrr@{k}" for k in (10, 1000)},
        **{f"Success@{k}": f"dot_accuracy@{k}" for k in (1, 5, 10)},
    }
    measures = [ir_measures.parse_measure(name) for name in names]
    for measure, value in ir_measures.calc_aggregate(measures, qrels, ranks).items():
        assert found[names[str(measure)]] == pytest.approx(value, abs=1e-6), measure
    assert 0 < found["dot_ndcg@10"] < 1
