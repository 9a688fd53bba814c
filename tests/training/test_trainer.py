from __future__ import annotations

import gc
import json
import logging
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_helpers import VOCABULARY, Anything, arguments, digest, pairs, rows_of, splade_loss, tiny_encoder, trainer

from sparse_encoder.evaluation import BaseEvaluator
from sparse_encoder.losses import EmbeddingLoss, SparseMultipleNegativesRankingLoss, SpladeLoss
from sparse_encoder.samplers import DefaultBatchSampler
from sparse_encoder.training import SparseEncoderTrainer, SparseEncoderTrainingArguments, TrainerCallback


class Mean(EmbeddingLoss):
    """The mean weight of the first column, plus the mean label: as plain as a loss can be."""

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        return embeddings[0].mean() + (0.0 if labels is None else labels.float().mean())

    def get_config_dict(self) -> dict[str, Any]:
        return {}


class Script(BaseEvaluator):
    """Return what the script says, one after the other, and remember how it was called."""

    def __init__(self, *results: float | dict[str, float], name: str = "") -> None:
        self.results = list(results)
        self.calls: list[tuple[str | None, float, int, bool]] = []
        self.name = name

    def __call__(
        self, model: Anything, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> float | dict[str, float]:
        self.calls.append((output_path, epoch, steps, model.training))
        return self.results[min(len(self.calls), len(self.results)) - 1]


def test_log_rows_have_the_keys_of_the_peer(tmp_path: Path) -> None:
    shown: list[dict[str, float]] = []

    class Keep(TrainerCallback):
        def on_log(self, *_: object, logs: dict[str, float] | None = None, **__: object) -> None:
            shown.append(dict(logs or {}))

    run = trainer(tmp_path, callbacks=[Keep], eval_dataset=pairs(6), eval_strategy="epoch", num_train_epochs=1)
    output = run.train()
    row = {
        "loss",
        "grad_norm",
        "learning_rate",
        "base_loss",
        "document_regularizer_loss",
        "query_regularizer_loss",
        "epoch",
    }
    weights = {"document_regularizer_weight", "query_regularizer_weight"}
    speed = {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
    terms = {"eval_base_loss", "eval_document_regularizer_loss", "eval_query_regularizer_loss"}
    end = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos", "epoch"}
    assert [set(each) - weights for each in shown] == [
        row,
        row,
        row,
        {"eval_loss", "epoch"} | speed | terms,
        end,
    ]
    assert all(weights <= set(each) for each in shown)
    assert [set(each) for each in run.state.log_history] == [set(each) - weights | {"step"} for each in shown]
    assert set(output.metrics) == end
    assert [each["epoch"] for each in run.state.log_history] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])
    assert [each["step"] for each in run.state.log_history] == [1, 2, 3, 3, 3]


def test_the_terms_of_a_loss_are_logged_in_full(tmp_path: Path) -> None:
    run = trainer(tmp_path, num_train_epochs=1)
    run.train()
    for row in run.state.log_history[:3]:
        parts = row["base_loss"] + row["document_regularizer_loss"] + row["query_regularizer_loss"]
        assert row["loss"] == pytest.approx(parts, rel=1e-6)
    penalty = run.state.log_history[1]["document_regularizer_loss"]
    assert penalty != round(penalty, 4)


def test_a_row_is_the_mean_since_the_row_before(tmp_path: Path) -> None:
    every = trainer(tmp_path, num_train_epochs=2)
    every.train()
    some = trainer(tmp_path, num_train_epochs=2, logging_steps=4)
    output = some.train()
    losses = [row["loss"] for row in every.state.log_history if "loss" in row]
    assert len(losses) == 6
    rows = [row for row in some.state.log_history if "loss" in row]
    assert [row["loss"] for row in rows] == pytest.approx([sum(losses[:4]) / 4], rel=1e-6)
    assert rows[0]["grad_norm"] == every.state.log_history[3]["grad_norm"]
    assert output.training_loss == pytest.approx(sum(losses) / 6, rel=1e-6)


def test_the_rate_of_a_row_is_that_of_its_update(tmp_path: Path) -> None:
    run = trainer(tmp_path, num_train_epochs=2, learning_rate=0.6, warmup_steps=2)
    run.train()
    rates = [row["learning_rate"] for row in run.state.log_history if "loss" in row]
    assert rates == pytest.approx([0, 0.3, 0.6, 0.45, 0.3, 0.15])
    assert run.get_learning_rates() == pytest.approx([0.0, 0.0])


def test_rows_come_in_the_order_of_the_peer(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    class Watch(DefaultBatchSampler):
        def __iter__(self) -> Anything:
            for batch in super().__iter__():
                seen.append(batch)
                yield batch

    trainer(tmp_path, batch_sampler=Watch, num_train_epochs=2).train()
    assert seen == [[2, 6, 1, 8], [4, 5, 0, 9], [3, 7], [8, 4, 9, 0], [5, 1, 6, 7], [2, 3]]


def test_data_seed_changes_the_order_alone(tmp_path: Path) -> None:
    run = trainer(tmp_path, data_seed=7, per_device_train_batch_size=10)
    batch = next(iter(run.get_train_dataloader()))
    expected = torch.randperm(10, generator=torch.Generator().manual_seed(7)).tolist()
    texts = [pairs(10)["anchor"][row] for row in expected]
    assert torch.equal(batch["anchor_input_ids"], run.model.preprocess(texts)["input_ids"])


def test_two_runs_of_one_seed_are_alike_and_another_seed_is_not(tmp_path: Path) -> None:
    runs = [trainer(tmp_path, tiny_encoder(dropout=0.4), num_train_epochs=1, seed=seed) for seed in (1, 1, 2)]
    for run in runs:
        torch.rand(3)
        run.train()
    assert rows_of(runs[0]) == rows_of(runs[1]) != rows_of(runs[2])


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch", "sgd"])
def test_two_accumulated_batches_make_one_of_twice_the_size(tmp_path: Path, optim: str) -> None:
    options: dict[str, Any] = {"loss": Mean, "num_train_epochs": 2, "optim": optim, "rows": pairs(16)}
    large = trainer(tmp_path, per_device_train_batch_size=8, **options)
    small = trainer(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2, **options)
    assert large.train().global_step == small.train().global_step == 4
    for ours, theirs in zip(small.model.parameters(), large.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    for ours, theirs in zip(small.state.log_history[:4], large.state.log_history[:4], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5)


def test_a_short_last_update_is_divided_by_its_own_batches(tmp_path: Path) -> None:
    run = trainer(tmp_path, loss=Mean, rows=pairs(12), gradient_accumulation_steps=2, num_train_epochs=1, optim="sgd")
    losses: list[float] = []
    compute = run.compute_loss

    def watched(*given: Anything) -> Anything:
        loss = compute(*given)
        losses.append(loss.item())
        return loss

    run.compute_loss = watched  # type: ignore[method-assign]
    assert run.train().global_step == 2
    rows = [row["loss"] for row in run.state.log_history if "loss" in row]
    assert rows == pytest.approx([(losses[0] + losses[1]) / 2, losses[2]], rel=1e-6)


class Faulty(Mean):
    """Return NaN for the batches whose numbers are given."""

    def __init__(self, model: nn.Module, *faults: int) -> None:
        super().__init__(model)
        self.faults, self.count = faults, 0

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        loss = super().compute_loss_from_embeddings(embeddings, labels)
        self.count += 1
        return loss * math.nan if self.count in self.faults else loss


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "sgd"])
def test_a_loss_that_is_nan_moves_nothing(tmp_path: Path, optim: str, caplog: pytest.LogCaptureFixture) -> None:
    weights: list[dict[str, Tensor]] = []

    class Keep(TrainerCallback):
        def on_step_end(self, *_: object, model: Anything = None, **__: object) -> None:
            weights.append({name: each for name, each in digest(model).items() if name != "calls"})

    run = trainer(tmp_path, loss=lambda model: Faulty(model, 1, 4), num_train_epochs=2, optim=optim, callbacks=[Keep])
    start = {name: each for name, each in digest(run.model).items() if name != "calls"}
    with caplog.at_level(logging.WARNING):
        run.train()
    moved = [
        any(not torch.equal(before[name], after[name]) for name in after)
        for before, after in zip([start, *weights], weights, strict=False)
    ]
    assert moved == [False, True, True, False, True, True]
    assert [message for message in caplog.messages if "left out" in message] == [
        "1 updates were left out: their gradient was not finite"
    ] * 2
    losses = [row["loss"] for row in run.state.log_history if "loss" in row]
    assert [math.isnan(loss) for loss in losses] == [True, False, False, True, False, False]
    assert math.isfinite(run.state.log_history[-1]["train_loss"])


@pytest.mark.parametrize("filtered", [True, False])
def test_the_filter_shows_the_mean_of_the_others(tmp_path: Path, filtered: bool) -> None:
    run = trainer(
        tmp_path,
        loss=lambda model: Faulty(model, 2),
        num_train_epochs=1,
        logging_steps=3,
        logging_nan_inf_filter=filtered,
    )
    run.train()
    assert math.isnan(run.state.log_history[0]["loss"]) != filtered


def test_nothing_but_nan_gives_up_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    run = trainer(
        tmp_path,
        loss=lambda model: Faulty(model, *range(3, 99)),
        num_train_epochs=9,
        logging_strategy="no",
        save_strategy="steps",
        save_steps=2,
    )
    with pytest.raises(FloatingPointError, match="not finite in 1[01] updates in a row, by update 1[12]"):
        run.train()
    assert all(torch.isfinite(each).all() for each in run.model.parameters())
    assert sorted(os.listdir(tmp_path)) == sorted(f"checkpoint-{step}" for step in (2, 4, 6, 8, 10))
    resumed = trainer(tmp_path, loss=Mean, num_train_epochs=9, save_strategy="no")
    assert resumed.train(resume_from_checkpoint=True).global_step == 27


def test_evaluation_weights_batches_by_their_size(tmp_path: Path) -> None:
    rows = pairs(7).add_column("label", [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
    run = trainer(tmp_path, loss=Mean, eval_dataset=rows, per_device_eval_batch_size=3)
    metrics = run.evaluate()
    run.model.eval()
    with torch.no_grad():
        whole = run.model(run.model.preprocess(rows["anchor"]))["sentence_embedding"].mean().item()
    assert metrics["eval_loss"] == pytest.approx(whole + 127 / 7, rel=1e-5)
    assert set(metrics) == {
        "eval_loss",
        "eval_runtime",
        "eval_samples_per_second",
        "eval_steps_per_second",
        "epoch",
    }
    assert run.evaluate()["eval_loss"] == metrics["eval_loss"]
    other = run.evaluate(pairs(5), metric_key_prefix="test")
    assert "test_loss" in other
    assert "eval_loss" not in other


def test_evaluation_leaves_the_training_as_it_was(tmp_path: Path) -> None:
    evaluations = {"eval_dataset": pairs(6), "eval_strategy": "steps", "eval_steps": 1, "eval_on_start": True}
    plain, watched = (
        trainer(tmp_path, tiny_encoder(dropout=0.4), num_train_epochs=1, **options) for options in ({}, evaluations)
    )
    plain.train()
    watched.train()
    assert rows_of(plain)[:3] == [row for row in rows_of(watched) if "loss" in row]
    assert watched.model.training
    assert len([row for row in watched.state.log_history if "eval_loss" in row]) == 4


def test_an_evaluator_is_called_as_in_the_peer(tmp_path: Path) -> None:
    evaluator = Script({"ndcg@10": 0.5, "eval_mrr@10": 0.25})
    run = trainer(tmp_path, evaluator=evaluator, eval_strategy="steps", eval_steps=2, num_train_epochs=1)
    run.train()
    folder = str(tmp_path / "eval")
    assert evaluator.calls == [(folder, 2 / 3, 2, False), (folder, 1.0, 3, False)]
    rows = [row for row in run.state.log_history if "eval_ndcg@10" in row]
    assert [row["eval_mrr@10"] for row in rows] == [0.25, 0.25]
    assert "eval_loss" not in rows[0]
    assert trainer(tmp_path, evaluator=Script(0.75)).evaluate()["eval_evaluator"] == 0.75


def test_several_evaluators_run_one_after_the_other(tmp_path: Path) -> None:
    run = trainer(tmp_path, evaluator=[Script({"a": 0.5}, name="x"), Script({"b": 0.25}, name="y")])
    metrics = run.evaluate()
    assert (metrics["eval_a"], metrics["eval_b"], metrics["eval_sequential_score"]) == (0.5, 0.25, 0.25)


BEST = [
    ("ndcg@10", None, [0.1, 0.4, 0.3], 2, 0.4),
    ("eval_ndcg@10", None, [0.4, 0.4, 0.3], 1, 0.4),
    ("ndcg@10", False, [0.1, 0.4, 0.0], 3, 0.0),
    ("ndcg@10", None, [math.nan, 0.1, 0.05], 2, 0.1),
]


@pytest.mark.parametrize(("name", "greater", "values", "step", "value"), BEST)
def test_the_best_model_by_an_evaluators_metric_is_loaded_at_the_end(
    tmp_path: Path, name: str, greater: bool | None, values: list[float], step: int, value: float
) -> None:
    weights: dict[int, dict[str, Tensor]] = {}

    class Keep(TrainerCallback):
        def on_step_end(self, args: Anything, state: Anything, *_: object, model: Anything, **__: object) -> None:
            weights[state.global_step] = digest(model)

    run = trainer(
        tmp_path,
        evaluator=Script(*[{"ndcg@10": each} for each in values]),
        callbacks=[Keep],
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model=name,
        greater_is_better=greater,
        num_train_epochs=1,
    )
    run.train()
    assert (run.state.best_global_step, run.state.best_metric) == (step, value)
    assert run.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{step}")
    assert all(torch.equal(tensor, weights[step][key]) for key, tensor in digest(run.model).items())
    assert sorted(os.listdir(tmp_path)) == [f"checkpoint-{step}", "eval"]


def test_a_best_metric_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    options: dict[str, Any] = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    run = trainer(tmp_path, evaluator=Script({"mrr": 1.0}), metric_for_best_model="ndcg", **options)
    with pytest.raises(KeyError, match="'eval_ndcg'; the evaluation gave .*'eval_mrr'"):
        run.train()


def test_saving_the_best_saves_when_the_metric_improves(tmp_path: Path) -> None:
    values = [{"mrr": each} for each in (0.2, 0.1, 0.3, 0.3, 0.2, 0.4)]
    run = trainer(
        tmp_path,
        evaluator=Script(*values),
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="best",
        metric_for_best_model="mrr",
        num_train_epochs=2,
    )
    run.train()
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-1", "checkpoint-3", "checkpoint-6", "eval"]


def test_an_evaluation_between_two_savings_is_saved_if_it_is_the_best(tmp_path: Path) -> None:
    run = trainer(
        tmp_path,
        evaluator=Script({"mrr": 0.5}, {"mrr": 0.4}),
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="mrr",
        num_train_epochs=1,
    )
    run.train()
    assert run.state.best_model_checkpoint == str(tmp_path / "checkpoint-1")


def test_bf16_runs_the_model_in_bfloat16_and_keeps_weights_in_float32(tmp_path: Path) -> None:
    model = tiny_encoder()
    seen: list[torch.dtype] = []
    model.project.register_forward_hook(lambda *given: seen.append(given[2].dtype))
    run = trainer(tmp_path, model, bf16=True, num_train_epochs=1)
    run.train()
    assert set(seen) == {torch.bfloat16}
    assert {each.dtype for each in model.parameters()} == {torch.float32}
    full = trainer(tmp_path, num_train_epochs=1)
    full.train()
    assert run.state.log_history[0]["loss"] == pytest.approx(full.state.log_history[0]["loss"], rel=0.02)
    assert run.state.log_history[0]["loss"] != full.state.log_history[0]["loss"]


def test_the_model_runs_once_for_each_column(tmp_path: Path) -> None:
    run = trainer(tmp_path, num_train_epochs=1)
    run.train()
    assert run.model.calls.item() == 2 * 3


def test_no_term_weights_outlive_their_update(tmp_path: Path) -> None:
    kept: list[list[tuple[int, ...]]] = []

    class Count(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            tensors = [each for each in gc.get_objects() if issubclass(type(each), Tensor)]
            kept.append([tuple(each.shape) for each in tensors if each.shape == (5, VOCABULARY)])

    trainer(tmp_path, per_device_train_batch_size=5, num_train_epochs=1, callbacks=[Count]).train()
    assert kept == [[], []]


def test_own_optimizers_are_used(tmp_path: Path) -> None:
    model = tiny_encoder()
    optimizer = torch.optim.SGD(model.project.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=99)
    before = digest(model)
    run = trainer(tmp_path, model, optimizers=(optimizer, scheduler), num_train_epochs=1)
    run.train()
    changed = {name for name, tensor in digest(model).items() if not torch.equal(tensor, before[name])}
    assert changed == {"project.weight", "project.bias", "calls"}
    assert run.optimizer is optimizer
    assert run.lr_scheduler is scheduler
    assert {row["learning_rate"] for row in run.state.log_history if "loss" in row} == {0.25}


def test_learning_rates_go_by_pattern(tmp_path: Path) -> None:
    run = trainer(tmp_path, learning_rate_mapping={"words": 0.0}, num_train_epochs=1)
    before = run.model.words.weight.clone()
    run.train()
    assert torch.equal(run.model.words.weight, before)


def test_optimizer_groups_are_found_by_identity_or_name(tmp_path: Path) -> None:
    run = trainer(tmp_path, weight_decay=0.1)
    with pytest.raises(ValueError, match="there is no optimizer yet"):
        run.get_optimizer_group()
    with pytest.raises(ValueError, match="there is no optimizer yet"):
        run.get_learning_rates()
    run.create_optimizer_and_scheduler(10)
    assert run.create_optimizer() is run.optimizer
    groups = run.get_optimizer_group()
    assert isinstance(groups, list)
    assert [len(group) for group in groups] == [2, 3]
    bias = run.get_optimizer_group(run.model.project.bias)
    assert isinstance(bias, dict)
    assert bias["weight_decay"] == 0.0
    assert run.get_optimizer_group("model.words.weight")["weight_decay"] == 0.1  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="there is no parameter 'words'"):
        run.get_optimizer_group("words")
    with pytest.raises(ValueError, match="in no group of the optimizer"):
        run.get_optimizer_group(nn.Parameter(torch.zeros(1)))
    assert run.get_learning_rates() == [1e-2, 1e-2]
    assert run.get_num_trainable_parameters() == sum(each.numel() for each in run.model.parameters())


def test_save_model_writes_the_model_and_the_settings(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run")
    run.save_model()
    run.save_model(str(tmp_path / "other"))
    for folder in ("run", "other"):
        names = ["README.md", "config.json", "model.safetensors", "training_args.json"]
        assert sorted(os.listdir(tmp_path / folder)) == names


def test_the_default_loss_is_that_of_the_peer(tmp_path: Path) -> None:
    loss = trainer(tmp_path, loss=None).loss
    assert isinstance(loss, SpladeLoss)
    assert isinstance(loss.loss, SparseMultipleNegativesRankingLoss)
    assert (loss.document_regularizer_weight, loss.query_regularizer_weight) == (3e-5, 5e-5)


def test_the_default_folder_is_tmp_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = SparseEncoderTrainer(tiny_encoder(), train_dataset=pairs(4))
    assert run.args.output_dir == "tmp_trainer"
    assert not list(tmp_path.iterdir())


def test_rows_may_be_a_list_of_dicts(tmp_path: Path) -> None:
    listed, table = (trainer(tmp_path, rows=rows, num_train_epochs=1) for rows in (pairs(10).to_list(), pairs(10)))
    listed.train()
    table.train()
    assert rows_of(listed) == rows_of(table)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"loss": {"a": nn.Identity()}}, r"losses by dataset, \['a'\], need train_dataset to be a dict of datasets"),
    ({"loss": {"a": splade_loss}, "rows": {"a": pairs(3), "b": pairs(3)}}, r"datasets without a loss, \['b'\]"),
    ({"loss": {}, "rows": {"a": pairs(3)}}, r"datasets without a loss, \['a'\]"),
    ({"loss": lambda model: "loss"}, "loss function's result must be a module, got str"),
    ({"loss": "loss"}, "must be a module, a function"),
    ({"compute_metrics": lambda output: {}}, "compute_metrics has nothing to work on"),
    ({"eval_strategy": "steps"}, "needs an eval_dataset or an evaluator"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_is_not_supported_is_refused_at_construction(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **options)


def test_a_model_and_settings_are_needed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="needs a model"):
        SparseEncoderTrainer(args=arguments(tmp_path))
    with pytest.raises(ValueError, match="must be SparseEncoderTrainingArguments, got dict"):
        SparseEncoderTrainer(tiny_encoder(), {"output_dir": "out"})  # type: ignore[arg-type]


def test_calls_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    run = SparseEncoderTrainer(tiny_encoder(), arguments(tmp_path))
    with pytest.raises(ValueError, match="needs a train_dataset"):
        run.train()
    with pytest.raises(ValueError, match="needs an eval_dataset or an evaluator"):
        run.evaluate()
    with pytest.raises(ValueError, match="there is no eval_dataset"):
        run.get_eval_dataloader()
    with pytest.raises(ValueError, match="ignore_keys must be None"):
        run.evaluate(pairs(3), ignore_keys=["logits"])
    batch = run.data_collator([{"a": "x", "b": "y"}])
    with pytest.raises(ValueError, match="num_items_in_batch must be None"):
        run.compute_loss(run.model, batch, num_items_in_batch=3)  # type: ignore[arg-type]
    value, outputs = run.compute_loss(run.model, batch, return_outputs=True)
    assert isinstance(value, Tensor)
    assert outputs == {}


def test_too_few_rows_for_a_batch_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 3 rows, not enough for one batch of 4"):
        trainer(tmp_path, rows=pairs(3), dataloader_drop_last=True).train()
    assert trainer(tmp_path, rows=pairs(1), num_train_epochs=1).train().global_step == 1


def test_is_in_train_is_true_while_training(tmp_path: Path) -> None:
    class Look(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            assert run.is_in_train
            raise RuntimeError("stop")

    run = trainer(tmp_path, callbacks=[Look])
    assert not run.is_in_train
    with pytest.raises(RuntimeError, match="stop"):
        run.train()
    assert not run.is_in_train


def test_log_adds_where_and_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 104.0)
    run = trainer(tmp_path)
    run.state.num_input_tokens_seen = 8
    given = {"mine": 1.0}
    run.log(given, start_time=100.0)
    assert given == {"mine": 1.0}
    assert run.state.log_history == [
        {"mine": 1.0, "epoch": 0.0, "train_runtime": 4.0, "train_tokens_per_second": 2.0, "step": 0}
    ]


def test_tokens_and_work_are_counted(tmp_path: Path) -> None:
    run = trainer(tmp_path, num_train_epochs=1)
    run.train()
    tokens = sum(
        batch[f"{column}_input_ids"].numel()
        for batch in run.get_train_dataloader()
        for column in ("anchor", "positive")
    )
    weights = sum(each.numel() for name, each in run.model.named_parameters() if name != "words.weight")
    assert run.state.num_input_tokens_seen == tokens
    assert run.state.total_flos == 6 * tokens * weights


def test_settings_of_the_model_that_was_saved_are_those_of_the_run(tmp_path: Path) -> None:
    run = trainer(tmp_path, save_strategy="epoch", num_train_epochs=1)
    run.train()
    text = (tmp_path / "checkpoint-3" / "training_args.json").read_text()
    assert SparseEncoderTrainingArguments(**json.loads(text)) == run.args


def test_a_wrapped_model_is_put_into_every_loss(tmp_path: Path) -> None:
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module, self.calls = module, 0

        def forward(self, features: Anything) -> Anything:
            self.calls += 1
            return self.module(features)

    run = trainer(tmp_path, loss=splade_loss)
    wrapper = Wrapper(run.model)
    batch = run.data_collator(pairs(4).to_list())
    wrapped = run.compute_loss(wrapper, batch)
    assert wrapper.calls == 2
    assert {id(part.model) for part in run.loss.modules() if hasattr(part, "model")} == {id(wrapper)}
    assert torch.equal(run.compute_loss(run.model, batch), wrapped)  # type: ignore[arg-type]
    assert wrapper.calls == 2
    assert {id(part.model) for part in run.loss.modules() if hasattr(part, "model")} == {id(run.model)}


def test_a_deepspeed_configuration_is_filled_where_there_is_one(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    with pytest.raises(ValueError, match="no DeepSpeed configuration"):
        run.propagate_args_to_deepspeed()
    plugin = SimpleNamespace(deepspeed_config={"train_micro_batch_size_per_gpu": "auto", "gradient_clipping": "auto"})
    run.accelerator = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin), num_processes=1)
    run.propagate_args_to_deepspeed()
    assert plugin.deepspeed_config == {"train_micro_batch_size_per_gpu": 4, "gradient_clipping": 1.0}
