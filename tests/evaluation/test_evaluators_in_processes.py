"""Evaluators under several processes: whoever shares out the encoding changes no number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from distributed_helpers import in_processes
from model_helpers import mixed_texts, write_masked_language_model
from nano_beir_helpers import offline, write_repository

from sparse_encoder import SparseEncoder
from sparse_encoder.evaluation import (
    BaseEvaluator,
    ReciprocalRankFusionEvaluator,
    SequentialEvaluator,
    SparseBinaryClassificationEvaluator,
    SparseEmbeddingSimilarityEvaluator,
    SparseInformationRetrievalEvaluator,
    SparseMSEEvaluator,
    SparseNanoBEIREvaluator,
    SparseRerankingEvaluator,
    SparseTranslationEvaluator,
    SparseTripletEvaluator,
)
from sparse_encoder.training.shared_evaluation import evaluate_together

TEXTS = mixed_texts(45, longest=12)


def evaluator(folder: Path, model: SparseEncoder) -> SequentialEvaluator:
    """Make one of each kind.

    Args:
        folder: Holds a copy of NanoBEIR.
        model: Teaches itself.
    """
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
        SparseMSEEvaluator(first, second, model, name="mse"),
        SparseNanoBEIREvaluator(["msmarco", "nq"], str(folder / "nano")),
        ReciprocalRankFusionEvaluator(ranked(second), ranked(second[::-1]), name="fusion"),
    ]
    return SequentialEvaluator(parts)


def ranked(documents: list[str]) -> list[dict[str, Any]]:
    return [
        {"query_id": str(row), "query": TEXTS[row], "positive": [TEXTS[15 + row]], "documents": documents[row:]}
        for row in range(5)
    ]


def without_time(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if "milliseconds" not in name}


def work(rank: int, folder: str) -> dict[str, Any]:
    shared = Path(folder).parent
    datasets.config.HF_DATASETS_CACHE, datasets.config.HF_HUB_OFFLINE = str(Path(folder) / f"cache{rank}"), True
    model = SparseEncoder(str(shared / "model"), device="cpu")
    measure = evaluator(shared, model)
    together = evaluate_together(lambda: measure(model, str(Path(folder) / "eval"), 0.5, 3), model)
    return {"together": together, "primary": measure.primary_metric}


@pytest.mark.slow
def test_any_number_of_processes_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, tmp_path / "cache")
    write_masked_language_model(tmp_path / "model")
    write_repository(tmp_path / "nano", splits=("NanoMSMARCO", "NanoNQ"))
    model = SparseEncoder(str(tmp_path / "model"), device="cpu")
    expected = without_time(evaluator(tmp_path, model)(model, str(tmp_path / "alone")))
    assert len(expected) > 90
    kinds = ("mse_negative_mse", "NanoBEIR_mean_dot_ndcg@10", "NanoNQ_dot_ndcg@10", "fusion_ndcg@10")
    assert all(expected[name] for name in kinds)
    for ranks in (2, 3):
        results = in_processes(work, ranks=ranks, folder=tmp_path / f"{ranks}")
        for result in results:
            assert without_time(result["together"]) == expected
        assert all(result["together"] == results[0]["together"] for result in results)
        tables = {path.name: path.read_text() for path in (tmp_path / f"{ranks}" / "eval").iterdir()}
        assert len(tables) == 11
        for name, text in tables.items():
            assert text.replace("\n0.5,3,", "\n-1,-1,") == (tmp_path / "alone" / name).read_text()
