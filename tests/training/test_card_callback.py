from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from huggingface_hub import ModelCard
from model_helpers import write_masked_language_model
from torch import nn

from sparse_encoder import SparseEncoder, SparseEncoderModelCardData
from sparse_encoder.evaluation import BaseEvaluator
from sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
from sparse_encoder.modules import Router, SpladePooling, Transformer
from sparse_encoder.training.card import ModelCardCallback
from sparse_encoder.training.card.facts import chosen_settings, total_rows, without_secrets
from sparse_encoder.training.card.logs import chosen_metric, loss_values, metric_values, rows_of
from sparse_encoder.training.state import TrainerControl, TrainerState

Anything = Any  # a dataset, a loss, a setting

PAIRS = {"anchor": ["the rain | sun", "cloud\nriver", "stone"] * 4, "positive": ["a cat", "dog", "the tree"] * 4}
DEFAULTS = {"learning_rate": 5e-5, "output_dir": "unused", "hub_token": None, "prompts": None, "seed": 42}


class Arguments(SimpleNamespace):
    """Only what a card reads of settings."""

    def to_dict(self) -> dict[str, Anything]:
        return {**DEFAULTS, **vars(self)}


class Run:
    """A trainer with only what a card reads, and the events of a run."""

    def __init__(self, model: nn.Module, data: Anything, evaluation: Anything = None, loss: Anything = None) -> None:
        self.model = model
        self.args = Arguments(output_dir="/home/someone/run", learning_rate=1e-3, hub_token="hf_secret")
        self.state, self.control = TrainerState(), TrainerControl()
        self.train_dataset, self.eval_dataset, self.loss = data, evaluation, loss
        self.callback = ModelCardCallback(DEFAULTS)
        self.fire("on_init_end", trainer=self)

    def fire(self, event: str, **extra: Anything) -> None:
        context = {"model": self.model, **extra}
        assert getattr(self.callback, event)(self.args, self.state, self.control, **context) is None

    def step(self, number: int, *, loss: float | None = None, metrics: Mapping[str, float] | None = None) -> None:
        self.state.global_step, self.state.epoch = number, number / 10
        if loss is not None:
            self.fire("on_log", logs={"loss": loss, "learning_rate": 0.1, "base_loss": 9.0})
        if metrics is not None:
            self.fire("on_log", logs=metrics)
            self.fire("on_evaluate", metrics=metrics)


class Accuracy(BaseEvaluator):
    def __init__(self, name: str) -> None:
        self.name, self.primary_metric = name, f"{name}_accuracy"

    def __call__(
        self, model: Anything, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        metrics = {f"{self.name}_accuracy": 0.5 + steps / 100, f"{self.name}_f1": 0.25}
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masked_language_model(tmp_path_factory.mktemp("splade"))


@pytest.fixture
def model(folder: Path) -> SparseEncoder:
    return SparseEncoder(str(folder), device="cpu")


def splade_loss(model: nn.Module) -> SpladeLoss:
    inner = SparseMultipleNegativesRankingLoss(model)
    return SpladeLoss(model, inner, document_regularizer_weight=3e-5, query_regularizer_weight=5e-5)


def saved(model: SparseEncoder, target: Path) -> ModelCard:
    model.save_pretrained(str(target))
    return ModelCard.load(target / "README.md")


def test_a_run_is_told(model: SparseEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data = Dataset.from_dict(PAIRS)
    run = Run(model, DatasetDict({"one": data, "two": data}), {"dev": data}, splade_loss(model))
    evaluator = Accuracy("tiny")
    evaluator(model)
    run.args.metric_for_best_model = "eval_tiny_f1"
    run.fire("on_train_begin")
    run.loss.document_regularizer_weight = 0.0  # as a schedule does
    run.step(1, loss=2.5)
    evaluator(model, epoch=0.2, steps=2)
    run.step(2, loss=2.25, metrics={"eval_dev_loss": 1.5, "eval_tiny_f1": 0.25})
    run.state.best_global_step = 2
    card = saved(model, tmp_path / "first")

    assert card.data.tags[4:] == [
        "generated_from_trainer",
        "dataset_size:24",
        "loss:SpladeLoss",
        "loss:SparseMultipleNegativesRankingLoss",
        "loss:FlopsLoss",
    ]
    assert card.data.widget[0] == {"text": "stone"}
    assert card.data.metrics == ["accuracy", "f1"]
    found = {(each.dataset_name, each.metric_type): each.metric_value for each in card.data.eval_results}
    assert found == {("tiny", "accuracy"): 0.52, ("tiny", "f1"): 0.25}
    text = card.text
    for line in (
        "| Epoch | Step | Training Loss | dev loss | tiny_accuracy | tiny_f1 |",
        "| -1 | -1 | - | - | 0.49 | - |",
        "| 0.1 | 1 | 2.5 | - | - | - |",
        "| **0.2** | **2** | **2.25** | **1.5** | **0.52** | **0.25** |",
        "| **accuracy** | **0.52** |",
        "#### one",
        "#### two",
        "#### dev",
        "* Size: 12 training samples",
        "* Size: 12 evaluation samples",
        "- `learning_rate`: 0.001",
        "- **Training datasets:** one, two",
    ):
        assert line in text.splitlines(), line
    assert r"  | <code>the rain \| sun</code> | <code>a cat</code> |" in text
    assert "  | <code>cloud<br>river</code> | <code>dog</code> |" in text
    assert '"document_regularizer_weight": 3e-05' in text
    assert "min: 3 tokens" in text
    assert "@misc{formal2022distillation" in text
    assert "# torch.Size([1, 89]) torch.Size([3, 89])".replace("89", str(model.get_embedding_dimension())) in text
    assert "hf_secret" not in text
    assert "hub_token" not in text
    assert "/home/someone" not in text
    non_default = text.split("#### Non-default")[1].split("#### All")[0]
    assert non_default.strip().splitlines() == ["- `learning_rate`: 0.001"]


def test_every_save_tells_the_run_so_far(model: SparseEncoder, tmp_path: Path) -> None:
    run = Run(model, Dataset.from_dict(PAIRS), Dataset.from_dict(PAIRS), splade_loss(model))
    run.fire("on_train_begin")
    run.step(1, loss=2.5)
    first = saved(model, tmp_path / "first").text
    run.step(2, metrics={"eval_loss": 1.25})
    second = saved(model, tmp_path / "second").text
    run.fire("on_train_end")
    last = saved(model, tmp_path / "last").text
    assert "| 0.2 | 2 |" not in first
    assert "| 0.2 | 2 | - | 1.25 |" in second
    assert second.count("### Training dataset") == last.count("### Training dataset") == 1
    assert last.count("* Size: 12 training samples") == 1
    model.model_card_data.training_logs[-1]["Training Loss"] = 0.5
    assert "| 0.2 | 2 | 0.5 | 1.25 |" in saved(model, tmp_path / "after").text


def test_nothing_is_read_before_a_readme_is_written(model: SparseEncoder, tmp_path: Path) -> None:
    class Rows:
        reads = 0

        def __len__(self) -> int:
            return 1000

        def __getitem__(self, index: int) -> dict[str, str]:
            self.reads += 1
            return {"anchor": f"rain {index}", "positive": "sun"}

    rows = Rows()
    run = Run(model, rows, None, splade_loss(model))
    run.fire("on_train_begin")
    assert rows.reads == 0
    assert "dataset_size:1000" in model.model_card_data.tags
    saved(model, tmp_path / "first")
    reads = rows.reads
    assert 0 < reads <= 200
    saved(model, tmp_path / "second")
    assert rows.reads == reads


def test_streams_have_no_size_and_no_samples(model: SparseEncoder, tmp_path: Path) -> None:
    stream = Dataset.from_dict(PAIRS).to_iterable_dataset()
    run = Run(model, {"a": stream}, stream, {"a": splade_loss(model)})
    run.fire("on_train_begin")
    card = saved(model, tmp_path / "saved")
    assert not any(tag.startswith("dataset_size") for tag in card.data.tags)
    assert "* Columns: <code>anchor</code> and <code>positive</code>" in card.text
    assert "Samples" not in card.text
    assert "widget" not in card.data.to_dict()


ODD = [
    {"anchor": None, "positive": "rain", "x": [[1, 2], []], "image": SimpleNamespace(width=2, height=3), "b": b"\xff"},
    {"anchor": "a\x00\ud800|`<b>\u2028\n---\n", "positive": "", "x": [], "t": torch.zeros(2, 3), "n": {"k": None}},
    {"anchor": "x" * 5000, "positive": "---", "x": None, "t": torch.tensor(float("nan")), 7: object()},
]


def test_no_data_is_too_odd_for_a_card(model: SparseEncoder, tmp_path: Path) -> None:
    run = Run(model, {"odd | `name`\n": ODD, "": []}, ODD, {"x": nn.Identity()})
    run.fire("on_train_begin")
    run.step(1, loss=float("nan"), metrics={"eval_loss": float("inf"), "eval_x": None})  # type: ignore[dict-item]
    card = saved(model, tmp_path / "saved")
    assert "| 0.1 | 1 | nan | inf |" in card.text
    assert r"#### odd \| &#96;name&#96;" in card.text
    assert "a\ufffd?\\|&#96;&lt;b&gt;\ufffd<br>---<br>" in card.text
    for row in (line for line in card.text.splitlines() if line.startswith("  | <code>")):
        assert row.replace(r"\|", "").count("|") == 9
    assert card.data.tags[-1] == "loss:Identity"


def test_a_model_whose_outputs_are_not_finite_is_saved_with_a_card(
    model: SparseEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(model, Dataset.from_dict(PAIRS))
    run.fire("on_train_begin")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3e38)  # which may be saved, and whose sums are infinite
    text = saved(model, tmp_path / "saved").text
    assert "encode_query(['stone'])" in text
    assert "tensor(" not in text
    assert "not finite" in caplog.text


def test_a_model_in_parts_on_several_processes_is_not_run(
    model: SparseEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(model, Dataset.from_dict(PAIRS))
    monkeypatch.setattr("sparse_encoder.training.card.callback.is_sharded", lambda each: each is model)
    model.encode = model.encode_query = model.encode_document = None  # type: ignore[assignment, method-assign]
    run.fire("on_train_begin")
    card = saved(model, tmp_path / "saved")
    assert card.data.widget[0] == {"text": "stone"}
    assert "tensor(" not in card.text


def test_a_readme_draws_nothing_at_random_and_leaves_the_model_training(model: SparseEncoder, tmp_path: Path) -> None:
    run = Run(model, Dataset.from_dict(PAIRS))
    run.fire("on_train_begin")
    model.train()
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    saved(model, tmp_path / "saved")
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert all(module.training for module in model.modules())


def test_a_model_with_routes(folder: Path, tmp_path: Path) -> None:
    def route() -> list[nn.Module]:
        return [Transformer(str(folder), transformer_task="fill-mask"), SpladePooling()]

    named = SparseEncoder(modules=[Router.for_query_document(route(), route())], device="cpu")
    other = SparseEncoder(modules=[Router({"left": route(), "right": route()})], device="cpu")
    for model, shown in ((named, True), (other, False)):
        Run(model, Dataset.from_dict(PAIRS), None, splade_loss(model)).fire("on_train_begin")
        text = saved(model, tmp_path / str(shown)).text
        assert "min: 3 tokens" in text
        assert ("# tensor([[" in text) == shown


def test_a_model_is_not_run_where_some_of_it_is_refused(model: SparseEncoder, tmp_path: Path) -> None:
    Run(model, Dataset.from_dict(PAIRS)).fire("on_train_begin")
    torch.use_deterministic_algorithms(True)
    try:
        text = saved(model, tmp_path / "saved").text
    finally:
        torch.use_deterministic_algorithms(False)
    assert "encode_query(['stone'])" in text
    assert "tensor(" not in text


def test_texts_are_not_shown_for_trying_if_that_is_not_wanted(model: SparseEncoder, tmp_path: Path) -> None:
    model.model_card_data.generate_widget_examples = False
    Run(model, Dataset.from_dict(PAIRS)).fire("on_train_begin")
    card = saved(model, tmp_path / "saved")
    assert "widget" not in card.data.to_dict()
    assert "what causes rain?" in card.text


def test_a_model_without_a_card_is_left_alone() -> None:
    model = nn.Linear(2, 3)
    run = Run(model, Dataset.from_dict(PAIRS), None, splade_loss(model))
    run.fire("on_train_begin")
    run.step(1, loss=1.0, metrics={"eval_loss": 1.0})
    run.fire("on_train_end")
    assert not hasattr(model, "model_card_data")


def test_a_resumed_run_tells_what_was_logged_before(model: SparseEncoder, tmp_path: Path) -> None:
    run = Run(model, Dataset.from_dict(PAIRS), {"dev": Dataset.from_dict(PAIRS)})
    run.state.log_history = [
        {"loss": 3.0, "epoch": 0.1, "step": 1},
        {"eval_dev_loss": 2.0, "eval_tiny_accuracy": 0.25, "eval_base_loss": 7.0, "epoch": 0.1, "step": 1},
        {"loss": 2.0, "epoch": 0.2, "step": 2},
    ]
    run.fire("on_train_begin")
    run.step(3, loss=1.0)
    Accuracy("tiny")(model, epoch=0.3, steps=3)
    table = saved(model, tmp_path / "saved").text.split("### Training log")[1].split("###")[0]
    assert table.strip().splitlines() == [
        "| Epoch | Step | Training Loss | dev loss | tiny_accuracy |",
        "| :---: | :---: | :---: | :---: | :---: |",
        "| 0.1 | 1 | 3.0 | 2.0 | 0.25 |",
        "| 0.2 | 2 | 2.0 | - | - |",
        "| 0.3 | 3 | 1.0 | - | 0.53 |",
    ]


def test_long_logs_are_folded(model: SparseEncoder, tmp_path: Path) -> None:
    run = Run(model, Dataset.from_dict(PAIRS))
    run.fire("on_train_begin")
    for step in range(1, 101):
        run.step(step, loss=1.0)
    assert "<details>" not in saved(model, tmp_path / "short").text.split("### Training log")[1].split("###")[0]
    run.step(101, loss=1.0)
    assert "<details>" in saved(model, tmp_path / "long").text.split("### Training log")[1].split("###")[0]


def test_another_model_of_the_same_trainer_gets_its_own_card(folder: Path, tmp_path: Path) -> None:
    models = [SparseEncoder(str(folder), device="cpu") for _ in range(2)]
    run = Run(models[0], Dataset.from_dict(PAIRS), None, splade_loss(models[0]))
    run.fire("on_train_begin")
    run.step(1, loss=3.0)
    run.model, run.state = models[1], TrainerState()
    run.fire("on_train_begin")
    run.step(1, loss=2.0)
    text = saved(models[1], tmp_path / "second").text
    assert "* Size: 12 training samples" in text
    assert "| 0.1 | 1 | 2.0 |" in text
    assert "| 0.1 | 1 | 3.0 |" not in text


def test_copies_of_a_model_do_not_know_the_run(model: SparseEncoder) -> None:
    Run(model, lambda: "cannot be pickled").fire("on_train_begin")
    for card in (copy.deepcopy(model.model_card_data), pickle.loads(pickle.dumps(model.model_card_data))):
        card.bring_up_to_date()
        assert card.training_seconds == 0.0
        assert "generated_from_trainer" in card.tags


def test_what_the_author_said_of_data_and_model_stays(folder: Path, tmp_path: Path) -> None:
    data = SparseEncoderModelCardData(train_datasets=[{"id": "me/rain", "name": "Rain"}], model_name="Mine")
    model = SparseEncoder(str(folder), device="cpu", model_card_data=data)
    run = Run(model, Dataset.from_dict(PAIRS))
    run.args.hub_model_id = "me/model"
    run.fire("on_init_end", trainer=run)
    run.fire("on_train_begin")
    card = saved(model, tmp_path / "saved")
    assert card.data.datasets == ["me/rain"]
    assert card.text.startswith("\n# Mine")
    assert "#### Rain\n\n* Dataset: [Rain](https://huggingface.co/datasets/me/rain)\n* Size: 12" in card.text
    assert 'SparseEncoder("me/model")' in card.text


def test_times_are_told(model: SparseEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("sparse_encoder.training.card.callback.time", SimpleNamespace(perf_counter=lambda: now[0]))
    run = Run(model, Dataset.from_dict(PAIRS))
    run.fire("on_train_begin")
    now[0] += 90
    assert "- **Training:** 1.5 minutes\n\n" in saved(model, tmp_path / "first").text
    run.step(1, metrics={"eval_a_runtime": 20.0, "eval_b_runtime": 10.0, "eval_loss": 1.0})
    run.fire("on_train_end")
    now[0] += 1000
    text = saved(model, tmp_path / "last").text
    assert "- **Training:** 1.0 minutes\n- **Evaluation:** 30.0 seconds\n- **Total:** 1.5 minutes\n" in text


def test_energy_is_told(model: SparseEncoder, tmp_path: Path) -> None:
    run = Run(model, Dataset.from_dict(PAIRS))
    run.fire("on_train_begin")
    emissions = {"emissions": 250.0, "energy_consumed": 0.5, "source": "codecarbon", "on_cloud": False}
    model.model_card_data.co2_eq_emissions = {**emissions, "cpu_model": "A | B", "ram_total_size": 3.14159}
    card = saved(model, tmp_path / "saved")
    assert card.data.co2_eq_emissions["emissions"] == 250.0
    for line in ("- **Carbon emitted:** 0.25 kg of CO2", "- **Energy consumed:** 0.5 kWh", "- **On cloud:** no"):
        assert line in card.text.splitlines()
    assert r"- **CPU:** A \| B" in card.text
    assert "- **RAM:** 3.14 GB" in card.text


def test_secrets_are_left_out() -> None:
    settings = {"hub_token": "a", "nested": {"api_key": "b", "ok": 1}, "wandb_api_key": "c", "password": "d", "x": 2}
    assert without_secrets(settings) == {"nested": {"ok": 1}, "x": 2}
    deep = {"headers": [{"auth": "x", "ok": 1}, ({"hf_tokens": "y"},)], "access_token_value": "z", "passphrase": "p"}
    assert without_secrets(deep) == {"headers": [{"ok": 1}, [{}]]}
    usual = {"pad_token_id": 0, "mini_batch_num_tokens": 8, "keys": ["a"], "author": "b"}
    assert without_secrets(usual) == usual
    assert without_secrets({"include_num_input_tokens_seen": "no"}) == {"include_num_input_tokens_seen": "no"}
    assert chosen_settings({"a": 1, "b": 2, "new": 3, "eval_steps": 5}, {"a": 1, "b": 1, "eval_steps": 1}) == {"b": 2}


def test_rows_of_logs() -> None:
    metrics = {"eval_loss": 1.0, "eval_a_loss": 2.0, "eval_base_loss": 3.0, "eval_f1": 0.5, "eval_runtime": 9.0}
    assert loss_values(metrics, [None]) == {"Validation Loss": 1.0}
    assert loss_values(metrics, ["a"]) == {"Validation Loss": 1.0, "a loss": 2.0}
    assert metric_values(metrics) == {"f1": 0.5}
    assert chosen_metric(metrics, "f1") == chosen_metric(metrics, "eval_f1") == {"f1": 0.5}
    assert chosen_metric(metrics, "loss") == chosen_metric(metrics, None) == {}
    assert rows_of([{"train_runtime": 1.0, "step": 3}, {"loss": 1.0}], []) == []


def test_numbers_of_rows() -> None:
    data = Dataset.from_dict(PAIRS)
    assert total_rows({"a": data, "b": [1, 2]}) == 14
    assert total_rows({"a": data, "b": data.to_iterable_dataset()}) is None
    assert total_rows(None) is None
