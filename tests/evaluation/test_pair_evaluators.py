"""The evaluators of pairs, triplets, translations, teachers, candidates and joined rankings: by hand, and bad input."""

from __future__ import annotations

import csv
from collections.abc import Callable
from math import isnan, log2, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_helpers import FOUR_TERMS, GivenTextModel
from torch import Tensor

from sparse_encoder.evaluation import (
    ReciprocalRankFusionEvaluator,
    SequentialEvaluator,
    SparseBinaryClassificationEvaluator,
    SparseEmbeddingSimilarityEvaluator,
    SparseMSEEvaluator,
    SparseRerankingEvaluator,
    SparseTranslationEvaluator,
    SparseTripletEvaluator,
)
from sparse_encoder.evaluation.fusion import reciprocal_rank_fusion


def model(similarity: str = "dot") -> GivenTextModel:
    return GivenTextModel({text: torch.tensor(row) for text, row in FOUR_TERMS.items()}, similarity)


def test_similarities_by_hand(tmp_path: Path) -> None:
    evaluator = SparseEmbeddingSimilarityEvaluator(["a", "b", "c"], ["b", "d", "d"], [0, 1, 2], name="dev")
    found = evaluator(model(), str(tmp_path), 0.25, 7)  # dot products: 2, 2, 3
    assert found.pop("dev_milliseconds_per_text") > 0
    assert found == {
        "dev_pearson_dot": pytest.approx(3**0.5 / 2),
        "dev_spearman_dot": pytest.approx(3**0.5 / 2),
        "dev_active_dims": pytest.approx((1 + 2 + 1 + 2 + 2 + 2) / 6),
        "dev_sparsity_ratio": pytest.approx(1 - 10 / 24),
        "dev_avg_flops": pytest.approx((2 * 3 + 1 * 1 + 1 * 2) / 9),  # texts of each side with a term, by term
    }
    assert evaluator.sparsity_stats == {"active_dims": 10 / 6, "sparsity_ratio": pytest.approx(1 - 10 / 24)}
    assert evaluator.costs.keys() == {"avg_flops", "milliseconds_per_text"}
    assert evaluator.primary_metric == "dev_spearman_dot"
    with (tmp_path / "similarity_evaluation_dev_results.csv").open() as file:
        headers, row = csv.reader(file)
    assert headers == ["epoch", "steps", "dot_pearson", "dot_spearman", "active_dims", "sparsity_ratio"]
    assert row[:2] == ["0.25", "7"]


def test_equal_similarities_have_no_correlation() -> None:
    evaluator = SparseEmbeddingSimilarityEvaluator(
        ["a", "a"], ["c", "e"], [0, 1], similarity_fn_names=["dot", "manhattan"]
    )
    found = evaluator(model())
    assert isnan(found["spearman_dot"])
    assert found["spearman_max"] == found["spearman_manhattan"] == pytest.approx(1)
    assert isnan(SparseEmbeddingSimilarityEvaluator(["a", "a"], ["c", "e"], [0, 1])(model())["pearson_dot"])


def test_labelled_pairs_by_hand() -> None:
    evaluator = SparseBinaryClassificationEvaluator(["a", "b", "c", "a"], ["b", "d", "d", "e"], [1, 0, 1, 0])
    asked = model()
    found = evaluator(asked)  # dot products: 2, 2, 3, 0; best first: yes | yes and no | no
    assert (found["dot_accuracy"], found["dot_accuracy_threshold"]) == (0.75, 2.5)
    assert found["dot_f1"] == pytest.approx(2 * (2 / 3) / (5 / 3))
    assert (found["dot_precision"], found["dot_recall"]) == (pytest.approx(2 / 3), 1.0)
    assert (found["dot_f1_threshold"], found["dot_ap"]) == (1.0, pytest.approx((1 + 2 / 3) / 2))
    assert found["dot_mcc"] == pytest.approx(2 / (3 * 1 * 2 * 2) ** 0.5)
    assert found["active_dims"] == pytest.approx((1 + 2 + 1 + 2 + 0) / 5)  # every text once
    assert [call["texts"] for call in asked.calls] == [["a", "b", "c", "d", "e"]]
    distances = SparseBinaryClassificationEvaluator(["a", "b"], ["a", "c"], [1, 0])(model("manhattan"))
    assert distances["manhattan_accuracy_threshold"] == 3.0  # between 0 and 6


def test_triplets_by_hand() -> None:
    evaluator = SparseTripletEvaluator(["a", "b", "c"], ["b", "a", "a"], ["c", "d", "d"])
    asked = model()
    found = evaluator(asked)  # 2 > 0, 2 > 2 not, 0 > 3 not
    assert found["dot_accuracy"] == pytest.approx(1 / 3)
    assert [call["kind"] for call in asked.calls] == ["query", "document", "document"]
    assert (found["anchor_active_dims"], found["negative_active_dims"]) == (pytest.approx(4 / 3), pytest.approx(5 / 3))
    strict = SparseTripletEvaluator(["a", "b"], ["b", "a"], ["c", "e"], margin={"dot": 2.0})
    assert strict(model())["dot_accuracy"] == 0.0  # by exactly 2, which is not more
    assert strict.get_config_dict() == {"margin": {"cosine": 0, "dot": 2.0, "euclidean": 0, "manhattan": 0}}


def test_translations_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    evaluator = SparseTranslationEvaluator(["a", "c", "e"], ["b", "d", "a"], print_wrong_matches=True)
    found = evaluator(model())
    # a is nearest to a, not b; c to d; e to nothing, so to the first. b is nearest to a, d to a and c alike, a to a.
    assert found["src2trg_accuracy"] == pytest.approx(1 / 3)
    assert found["trg2src_accuracy"] == pytest.approx(1 / 3)
    assert found["mean_accuracy"] == pytest.approx(1 / 3)
    printed = capsys.readouterr().out
    assert "Source 0 is most similar to target 2 instead of target 0" in printed
    assert "Source 2" in printed
    assert "Source 1" not in printed
    alike = SparseTranslationEvaluator(["a", "b"], ["a", "a"])(model())
    assert alike["src2trg_accuracy"] == 1.0  # an equal text at another place is right


def test_distance_to_a_teacher_by_hand() -> None:
    found = SparseMSEEvaluator(["a", "b"], ["d", "b"], model(), name="x")(model())
    assert found["x_negative_mse"] == pytest.approx(-100 * 1 / 8)
    assert found["x_active_dims"] == 2.0
    wide = GivenTextModel({text: torch.tensor([*row, 1.0]) for text, row in FOUR_TERMS.items()})
    with pytest.raises(ValueError, match=r"same terms and texts, got shapes \(1, 4\) and \(1, 5\)"):
        SparseMSEEvaluator(["a"], ["a"], model())(wide)


def test_candidates_by_hand() -> None:
    samples = [
        {"query": "d", "positive": ["a"], "negative": ["c", "b"]},  # dot products 1, 3, 2
        {"query": "a", "positive": ["b", "a"], "negative": "d"},  # 2, 1, 1
        {"query": "a", "positive": [], "negative": ["d"]},
    ]
    evaluator = SparseRerankingEvaluator(samples, at_k=2, similarity_fct=lambda q, d: q.to_dense() @ d.to_dense().T)
    found = evaluator(model())
    assert found["map"] == pytest.approx((1 / 3 + (1 + 2 / 3) / 2) / 2)
    assert found["mrr@2"] == pytest.approx((0 + 1) / 2)
    assert found["ndcg@2"] == pytest.approx((0 + (1 + 0.5 / log2(3)) / (1 + 1 / log2(3))) / 2)
    assert found["query_active_dims"] == 1.5
    assert found["avg_flops"] == pytest.approx(2 / 2 * 5 / 6 + 1 / 2 * 2 / 6)  # shares of the first and third term
    assert found["milliseconds_per_query"] > 0
    assert evaluator.primary_metric == "ndcg@2"
    one_by_one = SparseRerankingEvaluator({"x": samples[0], "y": samples[1]}, use_batched_encoding=False)
    assert one_by_one(model())["corpus_active_dims"] == pytest.approx(((1 + 1 + 2) / 3 + (2 + 1 + 2) / 3) / 2)


def test_rankings_are_joined_by_hand() -> None:
    assert reciprocal_rank_fusion([["a", "b"], ["b", "c"]], rrf_k=0) == ["b", "a", "c"]  # 1/2 + 1, 1, 1/2
    assert reciprocal_rank_fusion([["a"], ["b"]]) == ["a", "b"]  # equal: the first ranking's first
    dense = [{"query_id": 1, "query": "x", "positive": ["b", "z"], "documents": ["a", "b"]}]
    sparse = [{"query_id": 1, "documents": ["c"]}]
    evaluator = ReciprocalRankFusionEvaluator(dense, sparse, at_k=3)
    found = evaluator()
    assert found["dense_map"] == pytest.approx((1 / 2 + 2 / 3) / 2)  # z comes at the end
    assert found["sparse_map"] == found["sparse_mrr@3"] == 0.0
    assert found["mrr@3"] == pytest.approx(1 / 3)  # a c b
    assert found["ndcg@3"] == pytest.approx((1 / 2) / (1 + 1 / log2(3)))
    joint = SequentialEvaluator([evaluator, SparseTripletEvaluator(["a"], ["b"], ["c"])])(model())
    assert joint["ndcg@3"] == found["ndcg@3"]
    assert joint["sequential_score"] == 1.0


def test_one_document_is_a_ranking() -> None:
    sample = {"query_id": "q", "query": "x", "positive": "a", "documents": ["a"]}
    assert ReciprocalRankFusionEvaluator([sample], [sample])()["ndcg@10"] == 1.0  # the peer raises


SAMPLE: dict[str, Any] = {"query_id": 1, "query": "x", "positive": ["a"], "documents": ["a"], "negative": ["b"]}
CASES: list[tuple[Callable[[], object], type[Exception], str]] = [
    (
        lambda: SparseEmbeddingSimilarityEvaluator(["a", "b"], ["a"], [1, 2]),
        ValueError,
        "sentences2 lacks row 1: got sentences1 2, sentences2 1, scores 2",
    ),
    (
        lambda: SparseEmbeddingSimilarityEvaluator(["a"], ["a"], [nan]),
        ValueError,
        "scores must be finite, row 0 is nan",
    ),
    (
        lambda: SparseEmbeddingSimilarityEvaluator(["a", "b"], ["a", None], [1, 2]),  # type: ignore[list-item]
        TypeError,
        r"sentences2 must hold texts, row 1 is None \(NoneType\)",
    ),
    (
        lambda: SparseEmbeddingSimilarityEvaluator("a", "b", [1]),
        TypeError,
        "sentences1 must be a list of texts, got str",
    ),
    (lambda: SparseEmbeddingSimilarityEvaluator([], [], []), ValueError, "sentences1 must not be empty"),
    (
        lambda: SparseEmbeddingSimilarityEvaluator(["a"], ["a"], [[1.0]]),  # type: ignore[list-item]
        TypeError,
        r"scores must hold numbers, row 0 is \[1.0\] \(list\)",
    ),
    (
        lambda: SparseEmbeddingSimilarityEvaluator(["a"], ["a"], [1], similarity_fn_names=["jaccard"]),
        ValueError,
        "unknown similarity 'jaccard'; choose from",
    ),
    (
        lambda: SparseEmbeddingSimilarityEvaluator(
            ["a"], ["a"], [1], main_similarity="dot", similarity_fn_names=["cosine"]
        ),
        ValueError,
        r"must be one of similarity_fn_names \['cosine'\], got 'dot'",
    ),
    (lambda: SparseBinaryClassificationEvaluator(["a"], ["b"], [2]), ValueError, "labels must be 0 or 1, row 0 is 2"),
    (
        lambda: SparseBinaryClassificationEvaluator(["a"], ["b"], [1], similarity_fn_names=["dot", "dot"]),
        ValueError,
        "must be different",
    ),
    (lambda: SparseBinaryClassificationEvaluator(["a"], ["b"], []), ValueError, "labels lacks row 0"),
    (
        lambda: SparseTripletEvaluator(["a"], ["b"], ["c"], margin={"dots": 1.0}),
        ValueError,
        r"unknown are \['dots'\]; choose from",
    ),
    (lambda: SparseTripletEvaluator(["a"], ["b"], ["c"], margin=nan), ValueError, "margin must be finite"),
    (
        lambda: SparseTripletEvaluator(["a"], ["b"], ["c"], margin="1"),  # type: ignore[arg-type]
        TypeError,
        "margin must be a number",
    ),
    (lambda: SparseTripletEvaluator(["a"], ["b"], ["c"], batch_size=0), ValueError, "batch_size must be at least 1"),
    (lambda: SparseTranslationEvaluator(["a"], []), ValueError, "target_sentences must not be empty"),
    (lambda: SparseMSEEvaluator(["a"], ["a"]), TypeError, "teacher_model must be a model"),
    (lambda: SparseMSEEvaluator(["a"], ["a", "b"], model()), ValueError, "source_sentences lacks row 1"),
    (
        lambda: SparseRerankingEvaluator([{"query": "a", "positive": "b"}]),
        ValueError,
        r"samples must have \['query', 'positive', 'negative'\], sample 0 lacks \['negative'\]",
    ),
    (lambda: SparseRerankingEvaluator([]), ValueError, "samples must not be empty"),
    (lambda: SparseRerankingEvaluator([SAMPLE | {"positive": []}]), ValueError, "got none in 1"),
    (lambda: SparseRerankingEvaluator([SAMPLE | {"negative": [None]}]), TypeError, "negative must .*sample 0 has None"),
    (lambda: SparseRerankingEvaluator([SAMPLE | {"query": 3}]), TypeError, "query must be a text, sample 0 has 3"),
    (lambda: SparseRerankingEvaluator(["a"]), TypeError, "samples must be dicts, sample 0 is str"),  # type: ignore[list-item]
    (lambda: SparseRerankingEvaluator([SAMPLE], at_k=0), ValueError, "at_k must be an integer from 1 up, got 0"),
    (lambda: ReciprocalRankFusionEvaluator([SAMPLE], []), ValueError, "sparse_samples must not be empty"),
    (lambda: ReciprocalRankFusionEvaluator([SAMPLE], [SAMPLE] * 2), ValueError, "got 1 and 2"),
    (
        lambda: ReciprocalRankFusionEvaluator([SAMPLE], [SAMPLE | {"query_id": 2}]),
        ValueError,
        "sample 0 is of 1 and 2",
    ),
    (
        lambda: ReciprocalRankFusionEvaluator([SAMPLE], [{"query_id": 1}]),
        ValueError,
        r"sparse_samples must have .*sample 0 lacks \['documents'\]",
    ),
    (lambda: ReciprocalRankFusionEvaluator([SAMPLE], [SAMPLE], rrf_k=-1), ValueError, "rrf_k must not be negative"),
]


@pytest.mark.parametrize(("make", "kind", "message"), CASES)
def test_bad_input_is_named(make: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda q, d: torch.zeros(1, 3), r"must score 2 documents of one query, got scores of shape \(1, 3\)"),
        (lambda q, d: torch.full((1, 2), nan), "finite scores, query 'a' and document 'b' have nan"),
    ],
)
def test_scores_that_are_none_are_named(function: Callable[[Tensor, Tensor], Tensor], message: str) -> None:
    evaluator = SparseRerankingEvaluator([{"query": "a", "positive": "b", "negative": "c"}], similarity_fct=function)
    with pytest.raises(ValueError, match=message):
        evaluator(model())


def test_columns_of_a_dataset_are_taken() -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"one": ["a", "b"], "two": ["b", "d"], "score": [0.5, 1.0], "label": [0, 1]})
    found = SparseEmbeddingSimilarityEvaluator(rows["one"], rows["two"], rows["score"])(model())
    assert "spearman_dot" in found
    assert SparseBinaryClassificationEvaluator(rows["one"], rows["two"], rows["label"]).labels == [0, 1]
    tensors = SparseBinaryClassificationEvaluator(["a"], ["b"], torch.tensor([1]))  # type: ignore[arg-type]
    assert tensors.labels == [1]
