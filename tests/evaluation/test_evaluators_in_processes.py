"""Evaluators under several processes: whoever shares out the encoding changes no number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from distributed_helpers import in_processes
from model_helpers import mixed_texts, write_masked_language_model

from sparse_encoder import SparseEncoder
from sparse_encoder.evaluation import (
    BaseEvaluator,
    SequentialEvaluator,
    SparseBinaryClassificationEvaluator,
    SparseEmbeddingSimilarityEvaluator,
    SparseInformationRetrievalEvaluator,
    SparseRerankingEvaluator,
    SparseTranslationEvaluator,
    SparseTripletEvaluator,
)
from sparse_encoder.training.shared_evaluation import evaluate_together

TEXTS = mixed_texts(45, longest=12)


def evaluator() -> SequentialEvaluator:
    first, second, third = TEXTS[:15], TEXTS[15:30], TEXTS[30:]
    parts: list[BaseEvaluator] = [
        SparseInformationRetrievalEvaluator(
            {f"q{number}": text for number, text in enumerate(first)},
            {f"d{number}": text for number, text in enumerate(second + third)},
            {f"q{number}": {f"d{number}", f"d{2 * number}"} for number in range(15)},
            corpus_chunk_size=11,
        ),
        SparseEmbeddingSimilarityEvaluator(first, second, range(15)),
        SparseBinaryClassificationEvaluator(first, second, [0, 1, 1] * 5),
        SparseTripletEvaluator(first, second, third),
        SparseTranslationEvaluator(first, second),
        SparseRerankingEvaluator(
            [{"query": first[row], "positive": second[row], "negative": third[:4]} for row in range(15)], name="rerank"
        ),
    ]
    return SequentialEvaluator(parts)


def without_time(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if "milliseconds" not in name}


def work(rank: int, folder: str) -> dict[str, Any]:
    model = SparseEncoder(str(Path(folder).parent / "model"), device="cpu")
    measure = evaluator()
    together = evaluate_together(lambda: measure(model, str(Path(folder) / "eval"), 0.5, 3), model)
    return {"together": together, "primary": measure.primary_metric}


@pytest.mark.slow
def test_any_number_of_processes_finds_the_same(tmp_path: Path) -> None:
    write_masked_language_model(tmp_path / "model")
    model = SparseEncoder(str(tmp_path / "model"), device="cpu")
    expected = without_time(evaluator()(model, str(tmp_path / "alone")))
    assert len(expected) > 40
    for ranks in (2, 3):
        results = in_processes(work, ranks=ranks, folder=tmp_path / f"{ranks}")
        for result in results:
            assert without_time(result["together"]) == expected
        assert all(result["together"] == results[0]["together"] for result in results)
        tables = {path.name: path.read_text() for path in (tmp_path / f"{ranks}" / "eval").iterdir()}
        assert len(tables) == 6
        for name, text in tables.items():
            assert text.replace("\n0.5,3,", "\n-1,-1,") == (tmp_path / "alone" / name).read_text()
