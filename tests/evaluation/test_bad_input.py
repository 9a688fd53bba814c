"""Bad input of every evaluator: a typed error that names the argument, and row, column or id where there is one."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_helpers import GivenTextModel
from model_helpers import write_masked_language_model

from sparse_encoder import SparseEncoder
from sparse_encoder.csr import NotFiniteError
from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation import (
    Collection,
    ReciprocalRankFusionEvaluator,
    SequentialEvaluator,
    SparseBinaryClassificationEvaluator,
    SparseEmbeddingSimilarityEvaluator,
    SparseInformationRetrievalEvaluator,
    SparseMSEEvaluator,
    SparseRerankingEvaluator,
    SparseTranslationEvaluator,
    SparseTripletEvaluator,
    measure_run,
)
from sparse_encoder.evaluation.encoding_evaluator import embed_finite


class Raw(GivenTextModel):
    """Returns rows that nobody has checked, as a model with other values on a device would."""

    def _encode(self, kind: str, texts: list[str], options: dict[str, Any]) -> Any:  # noqa: ANN401
        rows = torch.stack([self.rows[text] for text in texts])
        crow = torch.arange(len(texts) + 1) * rows.shape[1]
        columns = torch.arange(rows.shape[1], dtype=torch.int32).repeat(len(texts))
        return SparseEmbeddings(crow, columns, rows.reshape(-1), tuple(rows.shape), validate=False)


ROWS = {"a": torch.tensor([1.0, 0.5]), "b": torch.tensor([2.0, 1.0]), "nan": torch.tensor([1.0, nan])}
ROWS["inf"] = torch.tensor([inf, 1.0])
QUERIES, CORPUS, ANSWERS = {"p": "b", "q": "a"}, {"d": "b", "e": "a"}, {"p": {"d"}, "q": {"d"}}
SAMPLE: dict[str, Any] = {"query": "a", "positive": ["a"], "negative": ["b"]}
RANKED: dict[str, Any] = {"query_id": 1, "query": "x", "positive": ["a"], "documents": ["a", "b"]}

similarity, binary = SparseEmbeddingSimilarityEvaluator, SparseBinaryClassificationEvaluator
retrieval: Any = SparseInformationRetrievalEvaluator
reranking: Any = SparseRerankingEvaluator
fusion: Any = ReciprocalRankFusionEvaluator
run: Any = measure_run
make: Any = Collection


def example(*texts: str, label: object = 1) -> Any:  # noqa: ANN401
    return SimpleNamespace(texts=texts, label=label)


CASES: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: similarity(["a"], ["b"], None), TypeError, "scores must be a list of numbers, got NoneType"),  # type: ignore[arg-type]
    (lambda: similarity(["a", "a"], ["b", "b"], [1, None]), TypeError, "scores must hold numbers, row 1 is None"),  # type: ignore[list-item]
    (lambda: similarity(["a"], ["b"], np.ones((1, 2))), TypeError, "scores must hold numbers, row 0 is array"),  # type: ignore[arg-type]
    (lambda: similarity(["a"], ["b"], torch.tensor([nan])), ValueError, "scores must be finite, row 0 is nan"),  # type: ignore[arg-type]
    (lambda: similarity(["a"], ["b"], [10**400]), ValueError, "scores must be finite, row 0 is too large"),
    (lambda: similarity({"a": 1}, ["b"], [1]), TypeError, "sentences1 must be a list of texts, got dict"),
    (lambda: similarity(["a"], ["b"], [1], batch_size="3"), TypeError, "batch_size must be an integer, got '3'"),  # type: ignore[arg-type]
    (lambda: similarity.from_input_examples([]), ValueError, "examples must not be empty"),
    (lambda: similarity.from_input_examples(None), TypeError, "examples must be a list, got NoneType"),  # type: ignore[arg-type]
    (
        lambda: similarity.from_input_examples([example("a", "b"), example("a")]),
        ValueError,
        "examples must have 2 texts, example 1 has 1",
    ),
    (
        lambda: similarity.from_input_examples([example("a", "b"), example("a", "b", label=None)]),
        TypeError,
        "scores must hold numbers, row 1 is None",
    ),
    (lambda: similarity.from_input_examples([("a", "b")]), TypeError, "example 0 has None"),  # type: ignore[list-item]
    (lambda: binary(["a"], ["b"], None), TypeError, "labels must be a list of numbers, got NoneType"),  # type: ignore[arg-type]
    (lambda: binary(["a"], ["b"], [nan]), ValueError, "labels must be finite, row 0 is nan"),  # type: ignore[list-item]
    (lambda: binary(["a"], ["b"], ["1"]), TypeError, "labels must hold numbers, row 0 is '1'"),  # type: ignore[list-item]
    (lambda: binary.from_input_examples([example("a")]), ValueError, "must have 2 texts, example 0 has 1"),
    (lambda: binary.find_best_acc_and_threshold([], [], True), ValueError, "scores must not be empty"),
    (lambda: binary.find_best_f1_and_threshold([1.0], [1, 0], True), ValueError, "scores lacks row 1"),
    (lambda: binary.find_best_f1_and_threshold([nan], [1], True), ValueError, "scores must be finite, row 0 is nan"),
    (lambda: SparseTripletEvaluator(["a"], ["b"], [None]), TypeError, "negatives must hold texts, row 0 is None"),  # type: ignore[list-item]
    (
        lambda: SparseTripletEvaluator.from_input_examples([example("a", "b")]),
        ValueError,
        "examples must have 3 texts, example 0 has 2",
    ),
    (lambda: SparseMSEEvaluator(["a"], ["a"], "bert"), TypeError, "teacher_model must be a model, and opened"),  # type: ignore[arg-type]
    (lambda: reranking(None), TypeError, "samples must be a list of dicts, got NoneType"),
    (lambda: reranking([SAMPLE | {"positive": {"a": 1}}]), TypeError, "positive must be a text or texts, sample 0 has"),
    (lambda: reranking([SAMPLE], similarity_fct="dot"), TypeError, "similarity_fct must be a function, got 'dot'"),
    (lambda: fusion(None, None), TypeError, "dense_samples must be a list of dicts, got NoneType"),
    (
        lambda: fusion([RANKED], [RANKED | {"documents": [3]}]),
        TypeError,
        "documents .* sample 0 of sparse_samples has 3",
    ),
    (lambda: fusion([RANKED], [RANKED]).compute_metrics([1, 0], [1.0]), ValueError, "y_pred lacks row 1"),
    (lambda: fusion([RANKED], [RANKED]).compute_metrics([1], [nan]), ValueError, "y_pred must be finite, row 0 is nan"),
    (lambda: fusion([RANKED], [RANKED]).compute_metrics([], []), ValueError, "y_pred must not be empty"),
    (lambda: retrieval(None, CORPUS, ANSWERS), TypeError, "queries must be a dict of texts by id, got NoneType"),
    (lambda: retrieval(QUERIES, ["a"], ANSWERS), TypeError, "corpus must be a dict of texts by id, got list"),
    (
        lambda: retrieval(QUERIES, {}, ANSWERS),
        ValueError,
        "must be queries with judgements and a corpus, .* 0 documents",
    ),
    (lambda: retrieval({}, CORPUS, ANSWERS), ValueError, "a corpus, got 0 such queries of 0 and"),
    (
        lambda: retrieval(QUERIES, CORPUS, ANSWERS, ndcg_at_k=5),
        TypeError,
        "ndcg_at_k must be a list of integers, got 5",
    ),
    (
        lambda: retrieval(QUERIES, CORPUS, ANSWERS).compute_metrics([[]]),
        ValueError,
        "queries_result_list lacks row 1: got queries_ids 2, queries_result_list 1",
    ),
    (
        lambda: retrieval(QUERIES, CORPUS, ANSWERS).compute_metrics([[], [{"id": "d"}]]),
        ValueError,
        "hits must have corpus_id and score, that at 0 of query 'q' is",
    ),
    (
        lambda: retrieval(QUERIES, CORPUS, ANSWERS).compute_metrics([[], [{"corpus_id": "d", "score": nan}]]),
        ValueError,
        "query 'q' gives document 'd' nan",
    ),
    (lambda: SequentialEvaluator(["x"]), TypeError, "evaluators must be callable, number 0 is 'x'"),  # type: ignore[list-item]
    (lambda: SequentialEvaluator(None), TypeError, "evaluators must be a list, got NoneType"),  # type: ignore[arg-type]
    (lambda: run({}, {"q": {"d": 1}}, "MAP"), TypeError, "metrics must be a list of names, got 'MAP'"),
    (lambda: run({"q": {"d": "x"}}, {"q": {"d": 1}}), TypeError, "query 'q' gives document 'd' 'x'"),
    (lambda: run({}, {"q": ["d"]}), TypeError, r"qrels must hold grades by document, query 'q' has \['d'\]"),
    (
        lambda: make(name="x", corpus={"": "t"}, queries={"q": "a"}, qrels={"q": {"": 1}}),
        ValueError,
        "collection 'x': ids must not be empty, corpus has 't' under ''",
    ),
    (
        lambda: make(name="x", corpus=CORPUS, queries={"": "a"}, qrels={"": {"d": 1}}),
        ValueError,
        "ids must not be empty, queries has 'a' under ''",
    ),
    (
        lambda: make(name="x", corpus={1: "t"}, queries=QUERIES, qrels={"q": {1: 1}}),
        TypeError,
        "collection 'x': ids must be texts, corpus has 1",
    ),
    (
        lambda: make(name="x", corpus={"d": None}, queries=QUERIES, qrels={"q": {"d": 1}}),
        TypeError,
        "corpus must hold texts, 'd' has None",
    ),
    (
        lambda: make(name="x", corpus=CORPUS, queries={"q": 3}, qrels={"q": {"d": 1}}),
        TypeError,
        "queries must hold texts, 'q' has 3",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), CASES)
def test_bad_input_is_told_with_its_place(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("model", [GivenTextModel, Raw])
@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_embeddings_that_are_not_finite_are_named_by_their_text_or_id(model: type[GivenTextModel], bad: str) -> None:
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: similarity(["a", bad], ["b", "b"], [1, 2]), f"row 1 of sentences1, '{bad}'"),
        (lambda: binary(["a", "b"], ["b", bad], [1, 0]), f"row 2 of all different sentences, '{bad}'"),
        (lambda: SparseTripletEvaluator(["a", "a"], ["b", "b"], ["b", bad]), f"row 1 of negatives, '{bad}'"),
        (lambda: SparseTranslationEvaluator(["a"], [bad]), f"row 0 of target_sentences, '{bad}'"),
        (lambda: SparseMSEEvaluator(["a"], [bad], GivenTextModel(ROWS)), f"row 0 of target_sentences, '{bad}'"),
        (lambda: reranking([SAMPLE, SAMPLE | {"query": bad}]), f"row 1 of the queries, '{bad}'"),
        (lambda: retrieval({"p": "a", "q": bad}, CORPUS, ANSWERS), "query 'q'"),
        (lambda: retrieval(QUERIES, {"d": "a", "e": bad}, ANSWERS), "document 'e'"),
        (lambda: retrieval(QUERIES, {"e": bad, "d": "a"}, ANSWERS, corpus_chunk_size=1), "document 'e'"),
    ]
    for build, message in cases:
        with pytest.raises(ValueError, match=f"embeddings must be finite, (those of )?{message}"):
            build()(model(ROWS))
    with pytest.raises(ValueError, match="embeddings must be finite, (those of )?row 0 of source_sentences"):
        SparseMSEEvaluator([bad], ["a"], model(ROWS))


def test_a_corpus_that_is_encoded_already_is_named_by_its_ids() -> None:
    evaluator = retrieval(QUERIES, CORPUS, ANSWERS)
    for given in (torch.stack([ROWS["a"], ROWS["nan"]]), torch.stack([ROWS["a"], ROWS["inf"]]).to_sparse()):
        with pytest.raises(ValueError, match="corpus_embeddings must be finite, those of 'e' are not"):
            evaluator(GivenTextModel(ROWS), corpus_embeddings=given)
    unchecked = Raw(ROWS).encode_document(["a", "nan"])
    with pytest.raises(ValueError, match="embeddings must be finite, document 'e' has nan for term 1"):
        evaluator(GivenTextModel(ROWS), corpus_embeddings=unchecked)


def test_a_score_that_is_not_finite_is_named_by_its_ids() -> None:
    def score(queries: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[1.0], [nan]]) if float(documents.to_dense()[0, 0]) == 1 else torch.ones(2, 1)

    evaluator = retrieval(QUERIES, CORPUS, ANSWERS, score_functions={"odd": score}, corpus_chunk_size=1)
    with pytest.raises(ValueError, match="score function 'odd' gives query 'q' and document 'e' nan"):
        evaluator(GivenTextModel(ROWS))


def test_a_real_model_with_broken_weights(tmp_path: Path) -> None:
    write_masked_language_model(tmp_path / "model")
    model = SparseEncoder(str(tmp_path / "model"), device="cpu")
    with torch.no_grad():
        next(model.parameters()).fill_(nan)
    with pytest.raises(ValueError, match=r"those of query 'p' are not: texts\[0\] has weights that are not finite"):
        retrieval(QUERIES, CORPUS, ANSWERS)(model)


def test_a_place_among_other_texts_names_nothing() -> None:
    def embed(texts: Any) -> SparseEmbeddings:  # noqa: ANN401
        if len(texts) > 1:
            raise NotFiniteError("texts[1] has weights that are not finite", 1)  # of a helper's part of them
        return SparseEmbeddings.from_dense(torch.ones(1, 2))

    with pytest.raises(NotFiniteError, match=r"^texts\[1\] has weights"):
        embed_finite(embed, ["a", "b", "c"], str)


def test_another_number_of_rows_than_texts() -> None:
    class Short(GivenTextModel):
        def _encode(self, kind: str, texts: list[str], options: dict[str, Any]) -> SparseEmbeddings:
            return super()._encode(kind, texts[:1], options)

    with pytest.raises(ValueError, match="a model must return a row for each text, got 1 for 2"):
        similarity(["a", "b"], ["b", "b"], [1, 2])(Short(ROWS))
