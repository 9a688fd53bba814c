"""The trainer of any module in two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from distributed_helpers import in_processes
from safetensors.torch import save_file
from torch import Tensor, nn

from sparse_encoder.training import EvalPrediction, Trainer, TrainingArguments

TOKENS, HIDDEN, LABELS, RANKS, ROWS, SIZE = 19, 8, 3, 2, 32, 4
Anything = Any  # settings, and what a run gives


class Tagger(nn.Module):
    """A label for every token, with a loss that is a sum over labels divided by a number it is given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.words = nn.Embedding(TOKENS, HIDDEN)
        self.head = nn.Linear(HIDDEN, LABELS)
        self.idle = nn.Linear(2, 2)

    def forward(
        self, input_ids: Tensor, labels: Tensor | None = None, num_items_in_batch: Tensor | None = None
    ) -> dict[str, Tensor | None]:
        logits = self.head(self.words(input_ids))
        if labels is None:
            return {"loss": None, "logits": logits}
        total = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        count = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        return {"loss": total / count, "logits": logits}

    def save_pretrained(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), Path(folder) / "model.safetensors")


def rows(count: int) -> Dataset:
    """Return sentences of which some have many labels that do not count."""
    draw = np.random.default_rng(7)
    ids = draw.integers(1, TOKENS, size=(count, 5))
    labels = np.where(draw.random(ids.shape) < np.linspace(0, 0.9, count)[:, None], -100, ids % LABELS)
    return Dataset.from_dict({"input_ids": ids.tolist(), "labels": labels.tolist()})


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    logits, labels = prediction
    counts = labels != -100
    return {"accuracy": float((logits.argmax(-1) == labels)[counts].mean()), "labels": int(counts.sum())}


def run(folder: Path, size: int, **options: Anything) -> dict[str, Anything]:
    """Train in float64, evaluate and predict rows that no batch size divides."""
    settings = {"num_train_epochs": 2, "learning_rate": 0.05, "logging_steps": 1, "save_strategy": "no"}
    args = TrainingArguments(
        str(folder),
        **{**settings, "disable_tqdm": True, "use_cpu": True, "per_device_train_batch_size": size, **options},
        per_device_eval_batch_size=2,
    )
    trainer = Trainer(Tagger().double(), args, train_dataset=rows(ROWS), compute_metrics=accuracy)
    trainer.train()
    metrics, predicted = trainer.evaluate(rows(11)), trainer.predict(rows(11))
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {
        "weights": {name: each.detach().clone() for name, each in trainer.model.named_parameters()},
        "losses": losses,
        "metrics": {name: metrics[name] for name in ("eval_loss", "eval_accuracy", "eval_labels")},
        "predictions": torch.from_numpy(predicted.predictions),
    }


def work(rank: int, folder: str) -> dict[str, Anything]:
    return {
        "plain": run(Path(folder) / "plain", SIZE),
        "accumulated": run(Path(folder) / "accumulated", SIZE // 2, gradient_accumulation_steps=2),
    }


@pytest.mark.slow
def test_two_processes_train_evaluate_and_predict_as_one(tmp_path: Path) -> None:
    expected = run(tmp_path / "one", RANKS * SIZE)
    for result in in_processes(work, ranks=RANKS, folder=tmp_path / "two"):
        for name in ("plain", "accumulated"):
            for key, tensor in expected["weights"].items():
                difference = (result[name]["weights"][key] - tensor).norm()
                assert difference <= 1e-9 * tensor.norm(), (name, key)
            assert result[name]["losses"] == pytest.approx(expected["losses"], rel=1e-5), name
            assert result[name]["metrics"] == pytest.approx(expected["metrics"], rel=1e-5), name
            torch.testing.assert_close(result[name]["predictions"], expected["predictions"], rtol=1e-6, atol=1e-9)
