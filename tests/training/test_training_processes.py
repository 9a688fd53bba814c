"""The trainer in two processes."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from distributed_helpers import in_processes
from torch import Tensor, nn
from training_helpers import TinyEncoder, pairs, rows_of, splade_loss, tiny_encoder, trainer

from sparse_encoder.losses import EmbeddingLoss, SparseMultipleNegativesRankingLoss, SpladeLoss

RANKS, ROWS, UPDATES, SIZE = 2, 48, 4, 3
Weights = dict[str, Tensor]
Anything = Any  # settings, and what a run gives


class ScaledRanking(EmbeddingLoss):
    """A loss with a parameter of its own, on two halves of the documents' terms."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.temperature = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        queries, documents = embeddings
        return (self.temperature * (queries * documents).sum(dim=1) - 4.0).square().mean()

    def get_config_dict(self) -> dict[str, Any]:
        return {}


class TwoTowers(TinyEncoder):
    """Queries, which are short, do not go through the projection, and nothing goes through one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.for_queries = nn.Linear(12, 17)
        self.idle = nn.Linear(2, 2)

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        if features["input_ids"].shape[1] > 7:
            return super().forward(features)
        hidden = self.words(features["input_ids"]).sum(dim=1)
        return {**features, "sentence_embedding": self.for_queries(hidden).relu()}


def gathering(model: nn.Module) -> SpladeLoss:
    ranking = SparseMultipleNegativesRankingLoss(model, gather_across_devices=True)
    return SpladeLoss(model, ranking, 0.3, 0.5, document_regularizer_threshold=2)


def scaled(model: nn.Module) -> SpladeLoss:
    return SpladeLoss(model, ScaledRanking(model), 0.3, 0.5)


def towers() -> TwoTowers:
    torch.manual_seed(4)
    return TwoTowers()


MODELS: dict[str, Any] = {"tiny": tiny_encoder, "towers": towers, "dropping": partial(tiny_encoder, dropout=0.3)}
CASES: dict[str, dict[str, Any]] = {
    "gathered": {"loss": gathering},
    "accumulated": {"loss": gathering, "gradient_accumulation_steps": 2},
    "own parameters": {"loss": scaled, "gradient_accumulation_steps": 2, "weight_decay": 0.1},
    "parts": {"loss": gathering, "model": "towers", "ddp_bucket_cap_mb": 1},
}
BY_DATASET = {"a": pairs(21), "b": pairs(17)}


def run(folder: Path, name: str, size: int, checkpoint: Path | None = None, **options: Anything) -> Anything:
    """Train in float64 and return the weights of model and loss, the mean loss and the log."""
    options = {**CASES.get(name, {}), **options}
    model = MODELS[options.pop("model", "tiny")]().double()
    steps = {"max_steps": UPDATES, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": size}
    given = trainer(folder, model, **{"rows": pairs(ROWS), **steps, **options})
    output = given.train(resume_from_checkpoint=checkpoint)
    weights = {name: each.detach().clone() for name, each in given.objective.named_parameters()}
    losses = [row["loss"] for row in rows_of(given) if "loss" in row]
    return weights, output.training_loss, losses


def work(rank: int, folder: str) -> Anything:
    """Train every case, all updates and then again from the second."""
    results = {}
    for name in CASES:
        straight = Path(folder) / name
        results[name] = run(straight, name, SIZE)
        results[f"{name} resumed"] = run(Path(folder) / f"{name} resumed", name, SIZE, straight / "checkpoint-2")
    losses = {"a": splade_loss, "b": ScaledRanking}
    for accumulated in (1, 2):
        results[f"by dataset {accumulated}"] = run(
            Path(folder) / f"by dataset {accumulated}",
            "",
            SIZE,
            rows=BY_DATASET,
            loss=losses,
            gradient_accumulation_steps=accumulated,
        )
    options = {"model": "dropping", "loss": splade_loss, "rows": pairs(21), "gradient_accumulation_steps": 2}
    results["dropout"] = run(Path(folder) / "dropout", "", SIZE, **options)
    checkpoint = Path(folder) / "dropout" / "checkpoint-2"
    results["dropout resumed"] = run(Path(folder) / "again", "", SIZE, checkpoint, **options)
    stream = {"loss": splade_loss, "rows": pairs(23).to_iterable_dataset(num_shards=3)}
    results["stream"] = run(Path(folder) / "stream", "", SIZE, **stream)
    checkpoint = Path(folder) / "stream" / "checkpoint-2"
    results["stream resumed"] = run(Path(folder) / "stream again", "", SIZE, checkpoint, **stream)
    results["evaluated"] = evaluated(rank, Path(folder))
    return results


def evaluated(rank: int, folder: Path) -> dict[str, Any]:
    """Evaluate while training, in the first process only; then fail there."""
    calls: list[int] = []

    def metric(model: nn.Module, output_path: str | None, epoch: float, steps: int) -> dict[str, float]:
        calls.append(steps)
        return {"score": 10.0 * steps + rank}

    options: dict[str, Any] = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "metric_for_best_model": "score",
        "greater_is_better": True,
        "load_best_model_at_end": True,
        "save_strategy": "steps",
        "save_steps": 2,
        "max_steps": UPDATES,
    }
    rows = pairs(ROWS)
    given = trainer(folder / "evaluated", rows=rows, evaluator=metric, eval_dataset=pairs(7), **options)
    given.train()
    best = Path(str(given.state.best_model_checkpoint)).name
    losses = [row["eval_loss"] for row in given.state.log_history if "eval_loss" in row]
    given.evaluator = None
    given.args.per_device_eval_batch_size = 2  # 4 batches, and 3 where a process goes through its first one again
    uneven = [given.evaluate(pairs(count))["eval_loss"] for count in (7, 5)]
    weights = {name: each.detach().clone() for name, each in given.model.state_dict().items()}
    scores = [row["eval_score"] for row in given.state.log_history if "eval_score" in row]
    given.evaluator = cast(Any, failing)
    with pytest.raises(ArithmeticError, match="no score"):
        given.evaluate()
    return {"calls": calls, "scores": scores, "best": best, "losses": losses, "uneven": uneven, "weights": weights}


def failing(*given: object, **options: object) -> float:
    raise ArithmeticError("no score")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Anything]]:
    return in_processes(work, ranks=RANKS, folder=tmp_path_factory.mktemp("processes"), fresh=True)


def assert_close(weights: Weights, expected: Weights) -> None:
    assert sorted(weights) == sorted(expected)
    for name, tensor in expected.items():
        assert (weights[name] - tensor).norm() <= 1e-9 * tensor.norm(), name


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CASES))
def test_two_processes_train_to_the_weights_of_one_with_the_doubled_batch(
    results: list[dict[str, Anything]], tmp_path: Path, name: str
) -> None:
    expected, mean_loss, losses = run(tmp_path, name, RANKS * SIZE)
    first = {name: each.detach() for name, each in MODELS[CASES[name].get("model", "tiny")]().named_parameters()}
    assert any(not torch.equal(tensor, expected[f"model.{name}"].float()) for name, tensor in first.items())
    for result in results:
        weights, own_loss, own_losses = result[name]
        assert_close(weights, expected)
        assert own_loss == pytest.approx(mean_loss, rel=1e-6)
        assert own_losses == pytest.approx(losses, rel=1e-6)


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_accumulated_micro_batches_train_to_the_weights_of_the_large_batch(tmp_path: Path, micro_batches: int) -> None:
    """Regularizers too: with a loss that is a mean over rows, nothing tells how a batch is cut."""
    options = {"loss": lambda model: SpladeLoss(model, ScaledRanking(model), 30.0, 50.0)}
    expected, mean_loss, _ = run(tmp_path / "whole", "", 12, **options)
    size = 12 // micro_batches
    weights, own_loss, _ = run(tmp_path / "cut", "", size, gradient_accumulation_steps=micro_batches, **options)
    assert_close(weights, expected)
    assert own_loss == pytest.approx(mean_loss, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*sorted(CASES), "dropout", "stream"])
def test_two_processes_resume_to_the_same_bits(results: list[dict[str, Anything]], name: str) -> None:
    expected = results[0][name][0]
    for result in results:
        for case in (name, f"{name} resumed"):
            weights = result[case][0]
            assert [key for key, tensor in expected.items() if not torch.equal(tensor, weights[key])] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["by dataset 1", "by dataset 2", "dropout"])
def test_processes_at_different_datasets_stay_together(results: list[dict[str, Anything]], name: str) -> None:
    """And so do those whose last batches are fewer than there are processes."""
    expected = results[0][name][0]
    weights, loss, _ = results[1][name]
    assert math.isfinite(loss) and loss > 0
    assert [key for key, tensor in expected.items() if not torch.equal(tensor, weights[key])] == []


@pytest.mark.slow
def test_the_first_process_evaluates_and_all_know_the_result(results: list[dict[str, Anything]]) -> None:
    first, second = (each["evaluated"] for each in results)
    assert (first["calls"], second["calls"]) == ([2, 4], [])
    assert first["scores"] == second["scores"] == [20.0, 40.0]
    assert first["best"] == second["best"] == "checkpoint-4"
    assert first["losses"] == second["losses"] and len(first["losses"]) == 2


@pytest.mark.slow
def test_every_row_counts_once_in_the_loss_of_an_evaluation(results: list[dict[str, Anything]], tmp_path: Path) -> None:
    first, second = (each["evaluated"] for each in results)
    alone = trainer(tmp_path, per_device_eval_batch_size=2)
    alone.model.load_state_dict(first["weights"])
    expected = [alone.evaluate(pairs(count))["eval_loss"] for count in (7, 5)]
    assert first["uneven"] == second["uneven"] == pytest.approx(expected, rel=1e-5)
