"""What evaluations of pairs, triplets, translations and candidates tell of costs, by hand; and where they tell it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_helpers import FOUR_TERMS, GivenTextModel

from sparse_encoder.evaluation import (
    SparseBinaryClassificationEvaluator,
    SparseEmbeddingSimilarityEvaluator,
    SparseMSEEvaluator,
    SparseRerankingEvaluator,
    SparseTranslationEvaluator,
    SparseTripletEvaluator,
)

COSTS = {"avg_flops", "postings_per_query", "milliseconds_per_query", "milliseconds_per_text"}


class Model(GivenTextModel):
    """Keeps what its card is told."""

    def __init__(self) -> None:
        super().__init__({text: torch.tensor(row) for text, row in FOUR_TERMS.items()})
        self.model_card_data = self
        self.told: dict[str, float] = {}

    def set_evaluation_metrics(self, evaluator: object, metrics: dict[str, float], epoch: float, step: int) -> None:
        self.told = metrics


SAMPLES = [
    {"query": "d", "positive": ["a"], "negative": ["c", "b"]},  # shares 1, 1, 1 terms
    {"query": "a", "positive": ["b", "a"], "negative": "d"},  # 1, 1, 1
    {"query": "c", "positive": ["a"], "negative": ["d", "e"]},  # 0, 1, 0
]
CASES: list[tuple[Any, dict[str, float], set[str]]] = [
    (
        SparseEmbeddingSimilarityEvaluator(["a", "b", "c"], ["b", "d", "d"], [0, 1, 2]),
        {"avg_flops": (2 * 3 + 1 * 1 + 1 * 2) / (3 * 3)},
        {"milliseconds_per_text"},
    ),
    (
        SparseBinaryClassificationEvaluator(["a", "b", "c", "a"], ["b", "d", "d", "e"], [1, 0, 1, 0]),
        {"avg_flops": (3 * 3 + 1 * 1 + 1 * 2) / (4 * 4)},
        {"milliseconds_per_text"},
    ),
    (
        SparseTripletEvaluator(["a", "b", "c"], ["b", "a", "a"], ["c", "d", "d"]),
        {"avg_flops": (2 * 5 + 1 * 1 + 1 * 3) / (3 * 6)},
        {"milliseconds_per_text"},
    ),
    (
        SparseMSEEvaluator(["a", "b"], ["d", "b"], Model()),
        {"avg_flops": (2 * 2 + 1 * 1 + 1 * 1) / (2 * 2)},
        {"milliseconds_per_text"},
    ),
    (
        SparseTranslationEvaluator(["a", "c", "e"], ["b", "d", "a"]),
        {"avg_flops": (1 * 3 + 1 * 1) / (3 * 3), "postings_per_query": 4 / 3},
        {"milliseconds_per_text", "milliseconds_per_query"},
    ),
    (
        SparseRerankingEvaluator(SAMPLES),
        {"avg_flops": (2 * 7 + 2 * 3) / (3 * 9), "postings_per_query": (3 + 3 + 1) / 3},
        {"milliseconds_per_text", "milliseconds_per_query"},
    ),
    (
        SparseRerankingEvaluator(SAMPLES, use_batched_encoding=False),
        {"avg_flops": (2 * 7 + 2 * 3) / (3 * 9), "postings_per_query": (3 + 3 + 1) / 3},
        {"milliseconds_per_text", "milliseconds_per_query"},
    ),
]


@pytest.mark.parametrize(("evaluator", "counted", "timed"), CASES, ids=lambda value: type(value).__name__)
def test_costs_are_returned_and_neither_the_table_nor_the_card_is_told(
    evaluator: Any,  # noqa: ANN401
    counted: dict[str, float],
    timed: set[str],
    tmp_path: Path,
) -> None:
    model = Model()
    found = evaluator(model, str(tmp_path))
    assert {name: found[name] for name in counted} == pytest.approx(counted)
    assert {name for name in found if name in COSTS} == counted.keys() | timed == evaluator.costs.keys()
    assert all(found[name] > 0 for name in timed)
    assert model.told == {name: value for name, value in found.items() if name not in COSTS}
    assert evaluator.sparsity_stats.items() <= model.told.items()
    (path,) = tmp_path.iterdir()
    with path.open(newline="") as file:
        headers, row = csv.reader(file)
    assert len(headers) == len(row)
    assert not [header for header in headers if "flops" in header or "postings" in header or "milliseconds" in header]


def test_the_names_of_costs_begin_with_that_of_the_evaluator() -> None:
    found = SparseTripletEvaluator(["a"], ["b"], ["c"], name="dev")(Model())
    assert list(found)[-2:] == ["dev_avg_flops", "dev_milliseconds_per_text"]


def test_encoding_time_is_that_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(100))
    monkeypatch.setattr("sparse_encoder.evaluation.encoding_evaluator.time.perf_counter", lambda: float(next(now)))
    found = SparseTripletEvaluator(["a", "b"], ["b", "a"], ["c", "d"])(Model())
    assert found["milliseconds_per_text"] == 1000 * 3 / 6  # a second for each of three calls, six texts
