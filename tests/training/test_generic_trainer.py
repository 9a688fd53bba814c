"""The trainer of any module that computes its own loss."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from safetensors.torch import save_file
from torch import Tensor, nn

from sparse_encoder.training import EvalPrediction, Trainer, TrainingArguments

TOKENS, HIDDEN, LABELS = 19, 8, 3
Anything = Any  # a setting, a batch, a result


class Tagger(nn.Module):
    """A label for every token, with the loss where there are labels."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.words = nn.Embedding(TOKENS, HIDDEN)
        self.head = nn.Linear(HIDDEN, LABELS)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> dict[str, Tensor | None]:
        logits = self.head(self.words(input_ids))
        loss = None if labels is None else nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"loss": loss, "logits": logits}

    def save_pretrained(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), Path(folder) / "model.safetensors")


class SummingTagger(Tagger):
    """The same with a loss that is a sum over labels divided by a number it is given."""

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | None = None,
    ) -> dict[str, Tensor | None]:
        logits = super().forward(input_ids)["logits"]
        assert logits is not None
        if labels is None:
            return {"loss": None, "logits": logits}
        total = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        count = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        return {"loss": total / count, "logits": logits}


def rows(count: int, *, length: int = 5, ignored: bool = True) -> Dataset:
    """Return sentences whose labels follow from their tokens; some labels do not count."""
    draw = np.random.default_rng(7)
    ids = draw.integers(1, TOKENS, size=(count, length))
    labels = ids % LABELS
    if ignored:
        labels = np.where(draw.random(labels.shape) < 0.3, -100, labels)
    return Dataset.from_dict(
        {"input_ids": ids.tolist(), "labels": labels.tolist(), "text": [f"sentence {i}" for i in range(count)]}
    )


def arguments(folder: Path, **options: Anything) -> TrainingArguments:
    options = {
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "learning_rate": 0.05,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        **options,
    }
    return TrainingArguments(str(folder), **options)


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    logits, labels = prediction
    counts = labels != -100
    return {"accuracy": float((logits.argmax(-1) == labels)[counts].mean()), "labels": int(counts.sum())}


def losses(run: Trainer) -> list[float]:
    return [row["loss"] for row in run.state.log_history if "loss" in row]


def test_it_learns_and_keeps_its_best_model(tmp_path: Path) -> None:
    args = arguments(
        tmp_path,
        num_train_epochs=8,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
    )
    run = Trainer(Tagger(), args, train_dataset=rows(32), eval_dataset=rows(10), compute_metrics=accuracy)
    output = run.train()
    assert output.global_step == 64
    assert run.evaluate()["eval_accuracy"] == run.state.best_metric == 1.0
    assert losses(run)[-1] < 0.2 < losses(run)[0]
    assert "text" not in next(iter(run.get_train_dataloader()))


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    options = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 3, "gradient_accumulation_steps": 2}
    straight = Trainer(Tagger(), arguments(tmp_path, **options), train_dataset=rows(30))
    straight.train()
    resumed = Trainer(Tagger(seed=5), arguments(tmp_path, **options), train_dataset=rows(30))
    resumed.train(resume_from_checkpoint=tmp_path / "checkpoint-3")
    for name, tensor in straight.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name])
    assert losses(resumed) == losses(straight)


def test_predictions_come_in_the_order_of_rows_with_every_row(tmp_path: Path) -> None:
    data = rows(10)
    run = Trainer(Tagger(), arguments(tmp_path), compute_metrics=accuracy)
    output = run.predict(data)
    expected = run.model(torch.tensor(data["input_ids"]))["logits"].detach().numpy()
    np.testing.assert_allclose(output.predictions, expected, atol=1e-6)
    np.testing.assert_array_equal(output.label_ids, data["labels"])
    labels = np.array(data["labels"])
    assert output.metrics["test_labels"] == (labels != -100).sum()
    assert output.metrics["test_accuracy"] == pytest.approx(
        (expected.argmax(-1) == labels)[labels != -100].mean(), abs=1e-9
    )
    assert run.state.log_history == []


def test_the_loss_of_an_evaluation_is_the_mean_over_rows(tmp_path: Path) -> None:
    data = rows(9)
    run = Trainer(Tagger(), arguments(tmp_path), eval_dataset=data)
    with torch.no_grad():
        of_batches = [
            (run.model(torch.tensor(part["input_ids"]), labels=torch.tensor(part["labels"]))["loss"].item(), size)
            for part, size in ((data[:4], 4), (data[4:8], 4), (data[8:], 1))
        ]
    expected = sum(loss * size for loss, size in of_batches) / 9
    assert run.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-6)


def test_evaluation_without_labels_has_predictions_and_no_loss(tmp_path: Path) -> None:
    run = Trainer(Tagger(), arguments(tmp_path))
    output = run.predict(rows(6).remove_columns("labels"))
    assert output.predictions.shape == (6, 5, LABELS)
    assert output.label_ids is None
    assert "test_loss" not in output.metrics


def test_only_the_loss_is_computed_if_that_is_asked_for(tmp_path: Path) -> None:
    run = Trainer(Tagger(), arguments(tmp_path, prediction_loss_only=True))
    output = run.predict(rows(6))
    assert output.predictions is None
    assert output.metrics["test_loss"] > 0


@pytest.mark.parametrize("steps", [None, 1, 2])
def test_predictions_may_leave_the_device_early(steps: int | None, tmp_path: Path) -> None:
    run = Trainer(Tagger(), arguments(tmp_path, eval_accumulation_steps=steps))
    assert run.predict(rows(10)).predictions.shape == (10, 5, LABELS)


def test_batches_of_predictions_may_stay_apart(tmp_path: Path) -> None:
    run = Trainer(Tagger(), arguments(tmp_path, eval_do_concat_batches=False))
    assert [len(each) for each in run.predict(rows(10)).predictions] == [4, 4, 2]


def test_metrics_by_batch_see_every_batch_and_know_the_last(tmp_path: Path) -> None:
    seen: list[tuple[int, bool]] = []

    def count(prediction: EvalPrediction, compute_result: bool) -> dict[str, float]:
        seen.append((len(prediction.predictions), compute_result))
        return {"rows": sum(size for size, _ in seen)} if compute_result else {}

    run = Trainer(Tagger(), arguments(tmp_path, batch_eval_metrics=True), compute_metrics=count)
    assert run.predict(rows(10)).metrics["test_rows"] == 10
    assert seen == [(4, False), (4, False), (2, True)]
    with pytest.raises(ValueError, match="needs compute_metrics.*compute_result"):
        Trainer(Tagger(), arguments(tmp_path, batch_eval_metrics=True), compute_metrics=accuracy)


def test_metrics_may_see_inputs_and_losses(tmp_path: Path) -> None:
    kept: list[EvalPrediction] = []

    def keep(prediction: EvalPrediction) -> dict[str, float]:
        kept.append(prediction)
        return {}

    args = arguments(tmp_path, include_for_metrics=["inputs", "loss"])
    data = rows(6)
    Trainer(Tagger(), args, compute_metrics=keep).predict(data)
    np.testing.assert_array_equal(kept[0].inputs, data["input_ids"])
    assert kept[0].losses.shape == (6,)
    assert len(tuple(kept[0])) == 4


def test_logits_are_preprocessed_before_they_pile_up(tmp_path: Path) -> None:
    run = Trainer(
        Tagger(), arguments(tmp_path), preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(dim=-1)
    )
    assert run.predict(rows(6)).predictions.shape == (6, 5)


def test_sentences_of_different_lengths_are_filled_up_with_the_ignored_label(tmp_path: Path) -> None:
    run = Trainer(Tagger(), arguments(tmp_path, per_device_eval_batch_size=1))
    short, long = rows(1, length=3)[0], rows(1, length=5)[0]
    output = run.predict([short, long])
    assert output.predictions.shape == (2, 5, LABELS)
    assert (output.predictions[0, 3:] == -100).all()
    assert (output.label_ids[0, 3:] == -100).all()


@pytest.mark.parametrize("strategy", ["random", "sequential", "group_by_length"])
def test_the_order_of_rows_is_the_strategys(strategy: str, tmp_path: Path) -> None:
    data = Dataset.from_list([rows(1, length=1 + i)[0] for i in range(8)]).add_column("length", list(range(1, 9)))

    def collate(features: list[dict[str, Any]]) -> dict[str, Any]:
        return {"lengths": [len(row["input_ids"]) for row in features]}

    args = arguments(tmp_path, train_sampling_strategy=strategy, per_device_train_batch_size=2)
    run = Trainer(Tagger(), args, train_dataset=data, data_collator=collate)
    batches = [batch["lengths"] for batch in run.get_train_dataloader()]
    assert sorted(length for batch in batches for length in batch) == list(range(1, 9))
    if strategy == "sequential":
        assert batches == [[1, 2], [3, 4], [5, 6], [7, 8]]
    elif strategy == "group_by_length":
        assert batches[0][0] == 8
    else:
        assert batches != [[1, 2], [3, 4], [5, 6], [7, 8]]


def test_a_loss_divided_by_labels_is_that_of_the_whole_update(tmp_path: Path) -> None:
    data = rows(8)
    results = []
    for size, steps in ((8, 1), (2, 4)):
        args = arguments(
            tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=steps, max_steps=1, optim="sgd"
        )
        model = SummingTagger().double()
        run = Trainer(model, args, train_dataset=data)
        run.train()
        results.append((losses(run)[0], model.head.weight.detach()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-12, atol=1e-12)


def test_a_function_may_compute_the_loss(tmp_path: Path) -> None:
    seen: list[Anything] = []

    def loss(outputs: Anything, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
        seen.append(None if num_items_in_batch is None else int(num_items_in_batch))
        total = nn.functional.cross_entropy(outputs["logits"].flatten(0, 1), labels.flatten(), reduction="sum")
        return total / (num_items_in_batch if num_items_in_batch is not None else (labels != -100).sum())

    data = rows(8)
    args = arguments(tmp_path, max_steps=1, per_device_train_batch_size=8)
    run = Trainer(Tagger(), args, train_dataset=data, compute_loss_func=loss)
    run.train()
    plain = Trainer(Tagger(), args, train_dataset=data)
    plain.train()
    assert seen == [(np.array(data["labels"]) != -100).sum()]
    assert losses(run) == pytest.approx(losses(plain), rel=1e-6)


def test_smoothed_labels_by_hand(tmp_path: Path) -> None:
    data = rows(4)
    args = arguments(tmp_path, max_steps=1, label_smoothing_factor=0.2)
    run = Trainer(Tagger(), args, train_dataset=data)
    with torch.no_grad():
        costs = -run.model(torch.tensor(data["input_ids"]))["logits"].log_softmax(-1)
    labels = torch.tensor(data["labels"])
    own = costs.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)[labels != -100]
    expected = 0.8 * own.mean() + 0.2 * costs.mean(-1)[labels != -100].mean()
    run.train()
    assert losses(run)[0] == pytest.approx(expected.item(), rel=1e-6)


def test_outputs_of_many_kinds_are_understood(tmp_path: Path) -> None:
    kinds = namedtuple("kinds", ["loss", "logits"])

    class Other(Tagger):
        form = "tuple"

        def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Anything:  # type: ignore[override]
            outputs = super().forward(input_ids, labels=labels)
            if self.form == "named":
                return kinds(outputs["loss"], outputs["logits"])
            return (outputs["loss"], outputs["logits"]) if labels is not None else (outputs["logits"],)

    for form in ("tuple", "named"):
        model = Other()
        model.form = form
        run = Trainer(model, arguments(tmp_path, max_steps=1), train_dataset=rows(4))
        run.train()
        assert run.predict(rows(4)).predictions.shape == (4, 5, LABELS)


class Bare(nn.Module):
    def forward(self, input_ids: Tensor) -> Tensor:
        return input_ids


def test_what_cannot_be_trained_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="forward of Bare takes no labels"):
        Trainer(Bare(), arguments(tmp_path), train_dataset=rows(4))
    with pytest.raises(RuntimeError, match="needs a model"):
        Trainer(args=arguments(tmp_path))
    with pytest.raises(ValueError, match="args must be TrainingArguments, got dict"):
        Trainer(Tagger(), {})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs an eval_dataset"):
        Trainer(Tagger(), arguments(tmp_path, eval_strategy="epoch"))
    with pytest.raises(ValueError, match=r"no column of train_dataset, \['words'\]"):
        Trainer(Tagger(), arguments(tmp_path), train_dataset=[{"words": "x"}]).train()
    with pytest.raises(ValueError, match="returned no loss.*logits"):
        run = Trainer(Tagger(), arguments(tmp_path))
        run.compute_loss(run.model, {"input_ids": torch.ones(2, 3, dtype=torch.long)})
    with pytest.raises(ValueError, match="needs an eval_dataset"):
        Trainer(Tagger(), arguments(tmp_path)).evaluate()


def test_several_evaluation_sets_have_their_own_keys(tmp_path: Path) -> None:
    sets = {"a": rows(4), "b": rows(6)}
    run = Trainer(Tagger(), arguments(tmp_path), eval_dataset=sets, compute_metrics=accuracy)
    metrics = run.evaluate()
    assert {"eval_a_loss", "eval_b_loss", "eval_a_accuracy", "eval_b_labels", "epoch"} <= set(metrics)
    assert set(run.evaluate("a")) == {name for name in metrics if name.startswith("eval_a_")} | {"epoch"}


def test_a_stream_is_trained_and_predicted_on(tmp_path: Path) -> None:
    stream: IterableDataset = rows(12).to_iterable_dataset()
    run = Trainer(Tagger(), arguments(tmp_path, max_steps=5), train_dataset=stream)
    assert run.train().global_step == 5
    assert run.predict(stream).predictions.shape == (12, 5, LABELS)


def test_results_are_written(tmp_path: Path) -> None:
    run = Trainer(Tagger(), arguments(tmp_path, max_steps=1), train_dataset=rows(4), eval_dataset=rows(4))
    metrics = run.train().metrics
    run.log_metrics("train", metrics)
    run.save_metrics("train", metrics)
    run.save_metrics("eval", run.evaluate())
    run.save_state()
    run.save_model()
    names = {path.name for path in tmp_path.iterdir()}
    wanted = {"train_results.json", "eval_results.json", "all_results.json", "trainer_state.json", "model.safetensors"}
    assert wanted <= names


def test_a_model_of_the_backbone_is_resumed_from_files_with_the_names_of_others(tmp_path: Path) -> None:
    from model_helpers import bert_config

    from sparse_encoder.backbone import MaskedLanguageModel

    def mean(logits: Tensor, labels: Tensor, num_items_in_batch: Tensor) -> Tensor:
        total = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        return total / num_items_in_batch

    def build(seed: int) -> MaskedLanguageModel:
        torch.manual_seed(seed)
        return MaskedLanguageModel.from_config(bert_config())

    ids = torch.randint(5, 20, (12, 6), generator=torch.Generator().manual_seed(1)).tolist()
    data = Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * 6] * 12, "labels": ids})
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-2}
    straight = Trainer(build(1), arguments(tmp_path, **options), train_dataset=data, compute_loss_func=mean)
    straight.train()
    resumed = Trainer(build(2), arguments(tmp_path, **options), train_dataset=data, compute_loss_func=mean)
    resumed.train(resume_from_checkpoint=tmp_path / "checkpoint-2")
    theirs = straight.model.state_dict()
    assert [name for name, tensor in resumed.model.state_dict().items() if not torch.equal(tensor, theirs[name])] == []
