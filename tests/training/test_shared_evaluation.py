from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed_helpers import in_processes
from model_helpers import mixed_texts, write_masked_language_model
from torch import nn

from sparse_encoder import SparseEncoder
from sparse_encoder.training.shared_evaluation import evaluate_together

RANKS = 2
Anything = Any  # what an evaluation gives


class Watched(SparseEncoder):
    """Counts the texts that are encoded in this process."""

    encoded = 0

    def forward(self, features: dict[str, Any], **options: Anything) -> dict[str, Any]:  # house: peer signature
        Watched.encoded += len(features["input_ids"])
        return super().forward(features, **options)


def outcome(work: Anything) -> str:
    try:
        return f"{work()}"
    except (ValueError, RuntimeError, KeyError) as error:
        return f"{type(error).__name__}: {error}"


def work(rank: int, folder: str) -> dict[str, Any]:
    model = Watched(str(Path(folder) / "model"))
    texts = mixed_texts(23)
    calls: list[str] = []

    def evaluate() -> dict[str, Any]:
        calls.append("evaluated")
        rows = model.encode(texts)
        queries = model.encode_query(texts[:9], convert_to_sparse_tensor=False)
        one = model.encode_document(texts[0], convert_to_tensor=True).to_dense()
        here = model.encode(texts[:4], device="cpu").to_dense()
        return {"rows": rows.to_dense().cpu(), "queries": queries.cpu(), "one": one.cpu(), "here": here.cpu()}

    def fail() -> float:
        raise ValueError(f"no metric in {rank}")

    def bad_texts() -> float:
        model.encode(texts, batch_size=-1)
        return 0.0

    together = evaluate_together(evaluate, model)
    encoded = Watched.encoded
    errors = [outcome(partial(evaluate_together, each, model)) for each in (fail, bad_texts)]
    if rank == 1:
        for parameter in model.parameters():
            parameter.data.fill_(torch.nan)
    errors.append(outcome(lambda: evaluate_together(lambda: len(model.encode(texts)), model)))
    other = nn.Linear(2, 2)
    plain = evaluate_together(lambda: {"metric": 0.25 + dist.get_rank()}, other)
    return {"together": together, "encoded": encoded, "calls": calls, "errors": errors, "plain": plain}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    write_masked_language_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> list[dict[str, Any]]:
    return in_processes(work, ranks=RANKS, folder=folder)


@pytest.mark.slow
def test_the_first_process_evaluates_and_all_encode(folder: Path, results: list[dict[str, Any]]) -> None:
    model = SparseEncoder(str(folder / "model"))
    texts = mixed_texts(23)
    expected = {
        "rows": model.encode(texts).to_dense(),
        "queries": model.encode_query(texts[:9]).to_dense(),
        "one": model.encode_document(texts[0]).to_dense(),
        "here": model.encode(texts[:4]).to_dense(),
    }
    assert float(expected["rows"].abs().sum()) > 0
    for result in results:
        for name, tensor in expected.items():
            assert torch.equal(result["together"][name], tensor), name
        assert result["plain"] == {"metric": 0.25}
    assert [result["calls"] for result in results] == [["evaluated"], []]
    assert [result["encoded"] for result in results] == [12 + 5 + 1 + 4, 11 + 4]
    assert "encode" not in vars(model)


@pytest.mark.slow
def test_errors_reach_all_processes(results: list[dict[str, Any]]) -> None:
    first, second = (each["errors"] for each in results)
    assert first == second
    assert first[0] == "ValueError: no metric in 0"
    assert first[1].startswith("ValueError: batch_size must be")
    assert "not finite" in first[2]  # of the second process, which encodes with broken weights


def test_one_process_evaluates_alone() -> None:
    assert evaluate_together(lambda: 3, nn.Identity()) == 3
