"""The generic trainer and transformers': the same losses, norms, rates, orders, evaluations and predictions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import save_file
from torch import Tensor, nn

from sparse_encoder.training import Trainer, TrainingArguments

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("transformers")
    from transformers.modeling_outputs import TokenClassifierOutput

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

TOKENS, HIDDEN, LABELS = 23, 8, 4
Anything = Any  # of either library


class Tagger(nn.Module):
    """A label for every token; dropout would draw other numbers in either library, so there is none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.words = nn.Embedding(TOKENS, HIDDEN)
        self.norm = nn.LayerNorm(HIDDEN)
        self.head = nn.Linear(HIDDEN, LABELS)
        self.config = peer.PretrainedConfig()  # the peer asks it for the model's type

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Anything:
        logits = self.head(self.norm(self.words(input_ids)))
        loss = None if labels is None else nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return TokenClassifierOutput(loss=loss, logits=logits)

    def save_pretrained(self, folder: str) -> None:
        save_file(self.state_dict(), Path(folder) / "model.safetensors")


def rows(count: int, *, with_length: bool = False) -> Dataset:
    draw = np.random.default_rng(3)
    ids = draw.integers(0, TOKENS, size=(count, 6))
    labels = np.where(draw.random(ids.shape) < 0.2, -100, ids % LABELS)
    table = {"input_ids": ids.tolist(), "labels": labels.tolist(), "text": ["x"] * count}
    if with_length:
        table["length"] = draw.integers(1, 99, size=count).tolist()
    return Dataset.from_dict(table)


def accuracy(prediction: Anything) -> dict[str, float]:
    logits, labels = prediction
    return {"accuracy": float((logits.argmax(-1) == labels)[labels != -100].mean())}


def both(folder: Path, *, data: Dataset | None = None, trained: bool = True, **options: Anything) -> list[Anything]:
    """Train in both libraries."""
    runs = []
    for library, (arguments, trainer) in {
        "ours": (TrainingArguments, Trainer),
        "peer": (peer.TrainingArguments, peer.Trainer),
    }.items():
        settings = {
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 4,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "save_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": True,
            "report_to": "none",
            **options,
        }
        run = trainer(
            model=Tagger(),
            args=arguments(output_dir=str(folder / library), **settings),
            train_dataset=rows(26) if data is None else data,
            eval_dataset=rows(11),
            compute_metrics=accuracy,
        )
        if trained:
            run.train()
        runs.append(run)
    return runs


def training_rows(run: Anything) -> list[dict[str, float]]:
    return [row for row in run.state.log_history if "loss" in row]


CASES: list[dict[str, Any]] = [
    {"max_steps": 20, "warmup_steps": 5, "weight_decay": 0.1},
    {"num_train_epochs": 3, "gradient_accumulation_steps": 3, "lr_scheduler_type": "cosine"},
    {"num_train_epochs": 2, "label_smoothing_factor": 0.1, "optim": "adamw_torch"},
    {"num_train_epochs": 2, "label_smoothing_factor": 0.1, "gradient_accumulation_steps": 2},
    {"num_train_epochs": 2, "dataloader_drop_last": True, "max_grad_norm": 0.3, "optim": "adafactor"},
    {"num_train_epochs": 2, "optim": "rmsprop", "lr_scheduler_type": "polynomial", "seed": 9},
    {"num_train_epochs": 2, "optim": "adagrad", "lr_scheduler_type": "inverse_sqrt", "warmup_steps": 0.3},
]


@pytest.mark.parametrize("options", CASES)
def test_losses_norms_and_rates(options: dict[str, Any], tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, **options)
    found, expected = training_rows(ours), training_rows(theirs)
    assert len(found) == len(expected) >= 6
    for row, other in zip(found, expected, strict=True):
        assert row.keys() == other.keys()
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4, abs=6e-5)  # the peer rounds
        assert row["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
        assert row["learning_rate"] == pytest.approx(other["learning_rate"], rel=1e-9)
        assert (row["step"], row["epoch"]) == (other["step"], pytest.approx(other["epoch"]))


@pytest.mark.parametrize("strategy", ["random", "sequential", "group_by_length"])
def test_the_order_of_rows(strategy: str, tmp_path: Path) -> None:
    data = rows(37, with_length=True)
    ours, theirs = both(tmp_path, data=data, trained=False, train_sampling_strategy=strategy)
    torch.manual_seed(42)  # the peer draws its order from the global generator
    expected, found = ([batch["input_ids"].tolist() for batch in run.get_train_dataloader()] for run in (theirs, ours))
    if strategy == "group_by_length":
        assert [len(batch) for batch in found] == [len(batch) for batch in expected]
    else:
        assert found == expected


def test_lengths_are_grouped_as_by_the_peer() -> None:
    from transformers.trainer_pt_utils import get_length_grouped_indices

    from sparse_encoder.samplers.length_grouped import LengthGroupedBatchSampler

    lengths = np.random.default_rng(0).integers(1, 50, size=203).tolist()
    for size in (1, 4, 16):
        sampler = LengthGroupedBatchSampler(range(203), size, False, seed=5, lengths=lengths)
        sampler.set_epoch(2)
        expected = get_length_grouped_indices(lengths, size, generator=torch.Generator().manual_seed(7))
        assert [row for batch in sampler for row in batch] == expected


def test_evaluations_and_predictions(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, max_steps=3)
    found, expected = ours.evaluate(), theirs.evaluate()
    assert found.keys() == expected.keys()
    assert found["eval_accuracy"] == expected["eval_accuracy"]
    assert found["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-4)
    output, other = ours.predict(rows(11)), theirs.predict(rows(11))
    np.testing.assert_allclose(output.predictions, other.predictions, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(output.label_ids, other.label_ids)
    assert output.metrics.keys() == other.metrics.keys()
