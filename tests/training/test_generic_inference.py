"""What the generic trainer collects of a model's outputs, and which models it takes for causal ones."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor, nn

from sparse_encoder.training import EvalPrediction, Trainer, TrainingArguments
from sparse_encoder.training.outputs import is_causal

Anything = Any  # a setting, a result


class Classifier(nn.Module):
    """Two classes, and what else models return."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.head = nn.Linear(3, 2)
        self.config = SimpleNamespace(use_cache=True)
        self.cached: list[bool] = []

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor | None]:
        if self.training:
            self.cached.append(self.config.use_cache)
        logits = self.head(x)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits, "past_key_values": x[:, :1], "hidden": x}


def rows(*, with_labels: bool = True) -> Dataset:
    table = {"x": torch.linspace(-1, 1, 15).view(5, 3).tolist(), "labels": [0, 1, 1, 0, 1]}
    return Dataset.from_dict(table if with_labels else {"x": table["x"]})


def build(folder: Path, *, compute_metrics: Anything = None, **options: Anything) -> Trainer:
    options = {"per_device_eval_batch_size": 2, "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", **options}
    args = TrainingArguments(str(folder), **options)
    return Trainer(Classifier(), args, train_dataset=rows(), eval_dataset=rows(), compute_metrics=compute_metrics)


class Counting:
    """A metric that remembers what it was called with."""

    def __init__(self) -> None:
        self.predictions: list[EvalPrediction] = []

    def __call__(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        self.predictions.append(prediction)
        return {"calls": len(self.predictions)}


def test_an_evaluation_without_metrics_collects_no_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    step = Trainer.prediction_step

    def watched(self: Trainer, model: nn.Module, inputs: Anything, only: bool, ignore: Anything = None) -> Anything:
        asked.append(only)
        return step(self, model, inputs, only, ignore)

    monkeypatch.setattr(Trainer, "prediction_step", watched)
    assert build(tmp_path).evaluate()["eval_loss"] > 0
    assert build(tmp_path, compute_metrics=Counting()).evaluate()["eval_calls"] == 1
    assert build(tmp_path).predict(rows()).predictions is not None
    assert asked == [True] * 3 + [False] * 6


def test_no_metric_is_computed_of_the_loss_alone(tmp_path: Path) -> None:
    metric = Counting()
    metrics = build(tmp_path, compute_metrics=metric, prediction_loss_only=True).evaluate()
    assert "eval_loss" in metrics
    assert "eval_calls" not in metrics
    assert metric.predictions == []


@pytest.mark.parametrize("by_batch", [False, True])
def test_no_metric_is_computed_without_labels(by_batch: bool, tmp_path: Path) -> None:
    metric = Counting()
    run = build(tmp_path, compute_metrics=metric, batch_eval_metrics=by_batch)
    output = run.predict(rows(with_labels=False))
    assert output.predictions[0].shape == (5, 2)
    assert metric.predictions == []


def test_outputs_that_the_configuration_names_are_no_predictions(tmp_path: Path) -> None:
    run = build(tmp_path)
    logits, hidden = run.predict(rows()).predictions
    assert (logits.shape, hidden.shape) == ((5, 2), (5, 3))
    run.model.config.keys_to_ignore_at_inference = ["past_key_values", "hidden"]
    assert run.predict(rows()).predictions.shape == (5, 2)
    assert len(run.predict(rows(), ignore_keys=["hidden"]).predictions) == 2


def test_the_cache_is_off_in_training_and_on_again_after_it(tmp_path: Path) -> None:
    run = build(tmp_path, max_steps=2, report_to="none")
    run.train()
    assert run.model.cached == [False, False]
    assert run.model.config.use_cache is True


def test_causal_models_are_told_by_the_name_of_their_class() -> None:
    def named(name: str, *bases: type) -> bool:
        return is_causal(type(name, bases or (nn.Module,), {})())

    causal = ["GPT2LMHeadModel", "LlamaForCausalLM", "CausalLanguageModel"]
    assert [named(name) for name in causal] == [True] * 3
    assert named("Mine", type("GPT2LMHeadModel", (nn.Module,), {}))
    others = ["BertForMaskedLM", "GPT2ForTokenClassification", "T5ForConditionalGeneration", "LMHeadModelWrapper"]
    assert [named(name) for name in others] == [False] * 4
