from __future__ import annotations

import csv
import json
import logging
from math import log2
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_helpers import DIM, GivenModel, random_model
from torch import Tensor

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation import SparseInformationRetrievalEvaluator, ranking
from sparse_encoder.evaluation.ranking import ScoreFunction
from sparse_encoder.search import BM25
from sparse_encoder.similarity import cos_sim, dot_score, manhattan_sim

QUERIES = {"q1": "one", "q2": "two", "q3": "without an answer"}
CORPUS = {"d3": "x", "d1": "y", "d2": "z", "d4": "far"}
ANSWERS = {"q1": {"d2"}, "q2": {"d1", "d9"}, "q3": set[str]()}
ROWS = {
    "one": [1.0, 1.0, 0.0],
    "two": [0.0, 2.0, 0.0],
    "without an answer": [0.0, 0.0, 1.0],
    "x": [2.0, 1.0, 0.0],  # d3: 3 for q1, 2 for q2
    "y": [3.0, 0.0, 0.0],  # d1: 3 for q1, 0 for q2
    "z": [0.0, 1.0, 5.0],  # d2: 1 for q1, 2 for q2
    "far": [0.0, 0.0, 1.0],  # d4: 0
}
# Ranked, equal scores by id: q1: d1 d3 d2 d4; q2: d2 d3 d1 d4.


def small_model() -> GivenModel:
    return GivenModel({text: torch.tensor(row) for text, row in ROWS.items()})


def small_evaluator(**options: object) -> SparseInformationRetrievalEvaluator:
    settings: dict[str, Any] = {"allow_unknown": True} | options  # d9 is not in the corpus
    return SparseInformationRetrievalEvaluator(QUERIES, CORPUS, ANSWERS, **settings)


def without_time(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.endswith("milliseconds_per_query")}


def test_by_hand(tmp_path: Path) -> None:
    evaluator = small_evaluator(
        accuracy_at_k=[1, 3], precision_recall_at_k=[3], mrr_at_k=[2, 3], map_at_k=[3], ndcg_at_k=[3], name="dev"
    )
    found = evaluator(small_model(), str(tmp_path / "eval"), 2, 7)
    ndcg = (1 / 2 + (1 / 2) / (1 + 1 / 1.584962500721156)) / 2
    expected = {
        "dev_dot_accuracy@1": 0.0,
        "dev_dot_accuracy@3": 1.0,
        "dev_dot_precision@3": 1 / 3,
        "dev_dot_recall@3": 0.75,
        "dev_dot_ndcg@3": ndcg,
        "dev_dot_mrr@2": 0.0,
        "dev_dot_mrr@3": 1 / 3,
        "dev_dot_map@3": (1 / 3 + 1 / 3 / 2) / 2,
        "dev_query_active_dims": 1.5,
        "dev_query_sparsity_ratio": 0.5,
        "dev_corpus_active_dims": 1.5,
        "dev_corpus_sparsity_ratio": 0.5,
        "dev_avg_flops": 1 / 2 * 2 / 4 + 2 / 2 * 2 / 4,  # shares of queries and documents, term by term
        "dev_postings_per_query": ((2 + 2) + 2) / 2,  # two documents have the first term, two the second
    }
    assert found.pop("dev_milliseconds_per_query") > 0
    assert found == pytest.approx(expected)
    assert list(found) == list(expected)
    assert evaluator.primary_metric == "dev_dot_ndcg@3"
    with (tmp_path / "eval" / "Information-Retrieval_evaluation_dev_results.csv").open() as file:
        headers, row = csv.reader(file)
    assert headers == [
        *("epoch", "steps", "dot-Accuracy@1", "dot-Accuracy@3", "dot-Precision@3", "dot-Recall@3"),
        *("dot-MRR@2", "dot-MRR@3", "dot-NDCG@3", "dot-MAP@3", "query_active_dims", "query_sparsity_ratio"),
        *("corpus_active_dims", "corpus_sparsity_ratio", "avg_flops"),
    ]
    values = dict(zip(headers, row, strict=True))
    assert (values["epoch"], values["steps"]) == ("2", "7")
    assert float(values["dot-NDCG@3"]) == pytest.approx(ndcg)
    assert float(values["avg_flops"]) == found["dev_avg_flops"]


def test_predictions(tmp_path: Path) -> None:
    evaluator = small_evaluator(write_predictions=True, write_csv=False)
    evaluator(small_model(), str(tmp_path))
    (path,) = tmp_path.iterdir()
    assert path.name == "Information-Retrieval_evaluation_predictions_dot.jsonl"
    first, second = [json.loads(line) for line in path.read_text().splitlines()]
    assert first == {
        "query_id": "q1",
        "query": "one",
        "results": [
            {"corpus_id": "d1", "score": 3.0},
            {"corpus_id": "d3", "score": 3.0},
            {"corpus_id": "d2", "score": 1.0},
            {"corpus_id": "d4", "score": 0.0},
        ],
    }
    assert [hit["corpus_id"] for hit in second["results"]] == ["d2", "d3", "d1", "d4"]


def test_every_option_reaches_the_model() -> None:
    model, other = small_model(), small_model()
    evaluator = small_evaluator(
        batch_size=5,
        max_active_dims=1,
        query_prompt="ask: ",
        query_prompt_name="ask",
        corpus_prompt="text: ",
        corpus_prompt_name="text",
        corpus_chunk_size=3,
    )
    found = evaluator(model, corpus_model=other)
    shared = {"batch_size": 5, "max_active_dims": 1, "show_progress_bar": False}
    assert model.calls == [
        {"kind": "query", "texts": ["one", "two"], "prompt": "ask: ", "prompt_name": "ask", **shared}
    ]
    document = {"kind": "document", "prompt": "text: ", "prompt_name": "text", **shared}
    assert other.calls == [{**document, "texts": ["y", "z", "x"]}, {**document, "texts": ["far"]}]  # by id
    assert found["query_active_dims"] == found["corpus_active_dims"] == 1.0
    assert evaluator.get_config_dict() == {
        "query_prompt": "ask: ",
        "query_prompt_name": "ask",
        "corpus_prompt": "text: ",
        "corpus_prompt_name": "text",
        "max_active_dims": 1,
    }
    assert small_evaluator().get_config_dict() == {}


def large_case(seed: int = 0) -> tuple[dict[str, str], dict[str, str], dict[str, set[str]]]:
    queries = {f"q{number}": f"query {number}" for number in range(20)}
    corpus = {f"d{number * 7 % 150}": f"document {number}" for number in range(150)}
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(150, (20, 3), generator=generator).tolist()
    return queries, corpus, {query: {f"d{pick}" for pick in row} for query, row in zip(queries, picks, strict=True)}


@pytest.mark.parametrize("similarity", ["dot", "cosine", "euclidean", "manhattan"])
def test_the_chunk_size_changes_nothing(similarity: str) -> None:
    queries, corpus, answers = large_case()
    model = random_model([*queries.values(), *corpus.values()], similarity_fn_name=similarity)
    results = [
        without_time(SparseInformationRetrievalEvaluator(queries, corpus, answers, corpus_chunk_size=size)(model))
        for size in (1, 17, 150, 50000)
    ]
    assert all(result == pytest.approx(results[0], abs=1e-12) for result in results)
    assert 0 < results[0][f"{similarity}_ndcg@10"] < 1


@pytest.mark.parametrize(("name", "function"), [("dot", dot_score), ("cosine", cos_sim)])
def test_the_index_ranks_as_the_scores_do(name: str, function: ScoreFunction, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, corpus, answers = large_case()
    model = random_model([*queries.values(), *corpus.values()], density=0.1)
    rounded = {text: (row * 2).ceil() / 2 for text, row in model.rows.items()}  # exact sums, many equal scores
    model = GivenModel(rounded if name == "dot" else model.rows, name)
    by_index = SparseInformationRetrievalEvaluator(queries, corpus, answers, score_functions={name: function})(model)
    monkeypatch.setattr(ranking, "_indexable", lambda function, name: None)
    monkeypatch.setattr(ranking, "MAX_BLOCK_SCORES", 300)  # two queries at a time
    by_blocks = SparseInformationRetrievalEvaluator(queries, corpus, answers, score_functions={name: function})(model)
    assert without_time(by_index) == pytest.approx(without_time(by_blocks), abs=1e-12)


def test_negative_weights_are_scored_block_by_block() -> None:
    model = small_model()
    model.rows["z"] = torch.tensor([0.0, -1.0, 5.0])  # d2 becomes the last of q2
    found = small_evaluator(write_predictions=True).compute_all_metrics(model)
    assert found["dot"]["mrr@k"][10] == pytest.approx((1 / 4 + 1 / 2) / 2)  # q1: d1 d3 d4 d2; q2: d3 d1 d4 d2


def test_encoded_corpora_of_any_kind() -> None:
    rows = torch.stack([torch.tensor(ROWS[text]) for text in CORPUS.values()])
    expected = without_time(small_evaluator()(small_model()))
    for embeddings in (rows, rows.to_sparse(), SparseEmbeddings.from_dense(rows)):
        model = small_model()
        found = small_evaluator(corpus_chunk_size=3)(model, corpus_embeddings=embeddings)
        assert without_time(found) == pytest.approx(expected)
        assert [call["kind"] for call in model.calls] == ["query"]
    with pytest.raises(ValueError, match="there must be 4 corpus_embeddings, got 3"):
        small_evaluator()(small_model(), corpus_embeddings=rows[:3])


def test_several_score_functions_and_the_primary_one(tmp_path: Path) -> None:
    def reversed_dot(queries: Tensor, documents: Tensor) -> Tensor:
        return -torch.sparse.mm(queries, documents.to_dense().T)

    functions = {"worst": reversed_dot, "dot": dot_score, "manhattan": manhattan_sim}
    evaluator = small_evaluator(score_functions=functions, name="dev")
    found = evaluator(small_model(), str(tmp_path))
    best = max(functions, key=lambda name: found[f"dev_{name}_ndcg@10"])
    assert evaluator.primary_metric == f"dev_{best}_ndcg@10"
    (path,) = tmp_path.iterdir()
    headers = path.read_text().splitlines()[0].split(",")
    assert [header for header in headers if "MAP" in header] == ["dot-MAP@100", "manhattan-MAP@100", "worst-MAP@100"]
    chosen = small_evaluator(score_functions=functions, main_score_function="manhattan")
    chosen(small_model())
    assert chosen.primary_metric == "manhattan_ndcg@10"
    with pytest.raises(ValueError, match=r"must be one of \['dot', 'manhattan', 'worst'\], got 'cosine'"):
        small_evaluator(score_functions=functions, main_score_function="cosine")
    with pytest.raises(ValueError, match=r"must be one of \['dot'\], got 'cosine'"):
        small_evaluator(main_score_function="cosine")(small_model())
    with pytest.raises(ValueError, match="score_functions must not be empty"):
        small_evaluator(score_functions={})


def test_a_model_with_another_similarity_brings_its_own_names(tmp_path: Path) -> None:
    evaluator = small_evaluator()
    evaluator(small_model(), str(tmp_path))
    other = small_model()
    other.similarity_fn_name = "cosine"
    assert "cosine_ndcg@10" in evaluator(other, str(tmp_path))
    assert evaluator.primary_metric == "cosine_ndcg@10"
    evaluator(other, str(tmp_path))
    kept, current = sorted(path.read_text().splitlines() for path in tmp_path.iterdir())
    lengths = {lines[0].split(",")[2]: len(lines) for lines in (kept, current)}
    assert lengths == {"dot-Accuracy@1": 2, "cosine-Accuracy@1": 3}  # the old table keeps its own headers
    assert {path.name for path in tmp_path.iterdir()} == {
        "Information-Retrieval_evaluation_results.csv",
        "Information-Retrieval_evaluation_results.1.csv",
    }


def test_a_score_function_that_returns_another_shape_is_named() -> None:
    evaluator = small_evaluator(score_functions={"odd": lambda queries, documents: torch.zeros(2, 3)})
    with pytest.raises(ValueError, match=r"shape \(2, 4\), got \(2, 3\)"):
        evaluator(small_model())


def test_bm25_is_a_model_like_any_other() -> None:
    corpus = {"d1": "a cat on a mat", "d2": "dogs chase a cat", "d3": "green tea"}
    model = BM25().fit(corpus.values())
    evaluator = SparseInformationRetrievalEvaluator(
        {"q": "which cat is on the mat", "r": "tea"}, corpus, {"q": {"d1"}, "r": {"d3"}}, max_active_dims=5
    )
    found = evaluator(model)
    assert found["dot_mrr@10"] == found["dot_ndcg@10"] == 1.0
    assert found["corpus_active_dims"] == pytest.approx((2 + 3 + 2) / 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relevant_docs": {}}, "got 0 such queries of 3"),
        ({"relevant_docs": {"q1": {}, "q2": set()}}, "got 0 such queries of 3"),
        ({"relevant_docs": {"q1": {"d2": 1e300}}}, r"at most 2\*\*53, document 'd2' of query 'q1' has 1e\+300"),
        ({"relevant_docs": {"q1": {"d2"}, "q9": {"d2"}}}, "names the unknown query 'q9'"),
        ({"relevant_docs": {"q2": {"d1", "d9"}}}, "of query 'q2' names the unknown document 'd9'"),
        ({"relevant_docs": {"q2": {"d1": float("nan")}}}, "document 'd1' of query 'q2' has nan"),
        ({"queries": {}}, "got 0 such queries of 0"),
        ({"queries": {}, "allow_unknown": True}, "got 0 such queries of 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"corpus": {}}, "and 0 documents"),
        ({"corpus": {}, "allow_unknown": True}, "and 0 documents"),
        ({"corpus_chunk_size": 0}, "corpus_chunk_size must be an integer from 1 up, got 0"),
        ({"ndcg_at_k": []}, "ndcg_at_k must not be empty"),
        ({"mrr_at_k": [0]}, "every k must be"),
    ],
)
def test_bad_options_are_refused_at_construction(options: dict[str, Any], message: str) -> None:
    settings = {"queries": QUERIES, "corpus": CORPUS, "relevant_docs": {"q1": {"d2"}}} | options
    with pytest.raises(ValueError, match=message):
        SparseInformationRetrievalEvaluator(**settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relevant_docs": [("q1", "d2")]}, "relevant_docs must be a dict by query, got list"),
        ({"relevant_docs": {"q1": "d2"}}, "query 'q1' has 'd2' \\(str\\)"),
        ({"relevant_docs": {"q1": 3}}, "query 'q1' has 3 \\(int\\)"),
        ({"relevant_docs": {"q1": {"d2": "2"}}}, "document 'd2' of query 'q1' has '2'"),
        ({"corpus": {**CORPUS, "d7": None}}, "corpus must hold texts, 'd7' has None"),
        ({"queries": {"q1": float("nan")}}, "queries must hold texts, 'q1' has nan"),
    ],
)
def test_what_is_of_another_type_is_named(options: dict[str, Any], message: str) -> None:
    settings = {"queries": QUERIES, "corpus": CORPUS, "relevant_docs": {"q1": {"d2"}}} | options
    with pytest.raises(TypeError, match=message):
        SparseInformationRetrievalEvaluator(**settings)


def test_grades_are_gains() -> None:
    answers = {"q1": {"d2": 3, "d3": 1, "d4": 0}, "q2": {"d1": -2, "d3": 2}}
    evaluator = SparseInformationRetrievalEvaluator(QUERIES, CORPUS, answers, ndcg_at_k=[1, 2, 10])
    found = evaluator(small_model())
    # q1: d1 d3 d2 d4, grades 0 1 3 0; q2: d2 d3 d1 d4, grades 0 2 0 0
    first_at_10 = (1 / log2(3) + 3 / 2) / (3 + 1 / log2(3))
    assert found["dot_ndcg@1"] == 0
    assert found["dot_ndcg@2"] == pytest.approx((1 / log2(3) / (3 + 1 / log2(3)) + 1 / log2(3)) / 2)
    assert found["dot_ndcg@10"] == pytest.approx((first_at_10 + 1 / log2(3)) / 2)
    assert found["dot_recall@3"] == 1.0
    assert found["dot_mrr@10"] == 0.5
    as_sets = SparseInformationRetrievalEvaluator(QUERIES, CORPUS, {"q1": ["d2", "d3"], "q2": {"d3"}})(small_model())
    for metric in ("accuracy@1", "precision@3", "recall@10", "mrr@10", "map@100"):
        assert as_sets[f"dot_{metric}"] == found[f"dot_{metric}"]


def test_a_document_with_the_id_of_its_query_is_left_out() -> None:
    corpus = {**CORPUS, "q1": "one"}  # the query itself, which is nearest to it
    model = small_model()
    for chunk in (1, 5):
        options: dict[str, Any] = {"accuracy_at_k": [1], "map_at_k": [], "precision_recall_at_k": [4], "mrr_at_k": [4]}
        options |= {"ndcg_at_k": [4], "corpus_chunk_size": chunk}
        plain, skipping = (
            SparseInformationRetrievalEvaluator(
                QUERIES, corpus, {"q1": {"d2"}, "q2": {"q1"}}, skip_own_id=skip, **options
            )
            for skip in (False, True)
        )
        assert list(plain.search(model)["dot"]["q1"]) == ["d1", "d3", "q1", "d2"]
        run = skipping.search(model)["dot"]
        assert list(run["q1"]) == ["d1", "d3", "d2", "d4"]
        assert list(run["q2"]) == ["d2", "d3", "q1", "d1"]  # found by others
        assert run["q1"] == {"d1": 3.0, "d3": 3.0, "d2": 1.0, "d4": 0.0}
        assert skipping(model)["dot_mrr@4"] == pytest.approx((1 / 3 + 1 / 3) / 2)


def test_postings_of_a_document_that_is_left_out_are_gone_through() -> None:
    model = GivenModel({"a": torch.tensor([1.0, 1.0, 0.0]), "b": torch.tensor([0.0, 1.0, 1.0])})
    texts = {"x": "a", "y": "b"}  # each asks with its own text: two of its own terms, one of the other's
    for skip in (False, True):
        found = SparseInformationRetrievalEvaluator(texts, texts, {"x": {"y"}}, skip_own_id=skip)(model)
        assert found["postings_per_query"] == 3.0


def test_costs_are_those_of_the_index() -> None:
    queries, corpus, answers = large_case()
    model = random_model([*queries.values(), *corpus.values()], density=0.2)
    found = SparseInformationRetrievalEvaluator(queries, corpus, answers, corpus_chunk_size=40)(model)
    documents = torch.stack([model.rows[text] for text in corpus.values()]) > 0
    asked = torch.stack([model.rows[text] for text in queries.values()]) > 0
    postings = (asked.float() @ documents.float().T).sum(dim=1)  # entries that a query's terms meet
    assert found["postings_per_query"] == pytest.approx(float(postings.mean()))
    assert found["avg_flops"] * len(corpus) == pytest.approx(found["postings_per_query"])
    assert 0 < found["milliseconds_per_query"] < 1000


def test_recall_deep_down() -> None:
    queries, corpus, answers = large_case()
    model = random_model([*queries.values(), *corpus.values()])
    evaluator = SparseInformationRetrievalEvaluator(queries, corpus, answers, precision_recall_at_k=[100, 1000])
    found = evaluator(model)
    assert found["dot_recall@1000"] == 1.0  # everything is ranked
    assert 0.5 < found["dot_recall@100"] < 1.0
    assert evaluator.active_terms["query"].num_rows == 20


def test_progress_and_log(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        small_evaluator(show_progress_bar=True, corpus_chunk_size=2)(small_model(), None, 1, 20)
    assert "Corpus Chunks: 100%" in capsys.readouterr().err
    assert "in epoch 1 after 20 steps" in caplog.text
    assert "dot_mrr@10: 0.3333" in caplog.text


def test_no_matrix_of_queries_by_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, corpus, answers = large_case()
    model = random_model([*queries.values(), *corpus.values()], similarity_fn_name="manhattan")
    monkeypatch.setattr(ranking, "MAX_BLOCK_SCORES", 450)
    sizes = []

    def watched(left: Tensor, right: Tensor) -> Tensor:
        sizes.append(left.shape[0] * right.shape[0])
        return manhattan_sim(left, right)

    evaluator = SparseInformationRetrievalEvaluator(queries, corpus, answers, score_functions={"m": watched})
    evaluator(model)
    assert sizes == [450] * 6 + [300]
    assert len(model.rows["query 0"]) == DIM
