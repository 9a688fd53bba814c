"""What scripts do with a trainer: modules without a save of their own, overridden steps, loaders and schedules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.training import (
    EarlyStoppingCallback,
    EvalPrediction,
    ProgressCallback,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    default_data_collator,
)

Anything = Any  # a batch, a setting, a result
SLOPE = 2.0


class Line(nn.Module):
    """y = a x + b, with the loss where there are labels; it cannot save itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.5))
        self.b = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor | None]:
        y = x * self.a + self.b
        return {"loss": None if labels is None else nn.functional.mse_loss(y, labels), "y": y}


class Tied(Line):
    """The same, with a second name for the slope."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = self.a


def points(count: int) -> list[dict[str, float]]:
    xs = [0.25 * index - 1 for index in range(count)]
    return [{"x": x, "labels": SLOPE * x} for x in xs]


def arguments(folder: Path, **options: Anything) -> TrainingArguments:
    defaults: dict[str, Anything] = {
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 4,
        "learning_rate": 0.1,
        "save_steps": 2,
        "logging_steps": 1,
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return TrainingArguments(str(folder), **{**defaults, **options})


def line_after(run: Trainer) -> tuple[float, float]:
    return run.model.a.item(), run.model.b.item()


@pytest.mark.parametrize("kind", [Line, Tied])
def test_a_module_without_a_save_of_its_own_is_saved_and_resumed(tmp_path: Path, kind: type[Line]) -> None:
    run = Trainer(kind(), arguments(tmp_path), train_dataset=points(8))
    run.train()
    tensors = load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    assert {name: each.item() for name, each in tensors.items()} == dict(zip("ab", line_after(run), strict=True))
    resumed = Trainer(kind(), arguments(tmp_path), train_dataset=points(8))
    resumed.train(resume_from_checkpoint=tmp_path / "checkpoint-2")
    assert line_after(resumed) == line_after(run)
    if isinstance(resumed.model, Tied):
        assert resumed.model.slope is resumed.model.a


class Sequence(nn.Sequential):
    """Modules one behind the other, none of them ours."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor | None]:  # type: ignore[override]
        y = super().forward(x.unsqueeze(-1)).squeeze(-1)
        return {"loss": None if labels is None else nn.functional.mse_loss(y, labels), "y": y}


def test_a_sequence_of_any_modules_is_resumed(tmp_path: Path) -> None:
    def build() -> Sequence:
        torch.manual_seed(0)
        return Sequence(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1))

    run = Trainer(build(), arguments(tmp_path), train_dataset=points(8))
    run.train()
    resumed = Trainer(build(), arguments(tmp_path), train_dataset=points(8))
    resumed.train(resume_from_checkpoint=tmp_path / "checkpoint-2")
    for name, each in run.model.state_dict().items():
        assert torch.equal(each, resumed.model.state_dict()[name])


class Noticing(Trainer):
    """Adds something to every step."""

    parts: list[float]

    def training_step(self, model: nn.Module, inputs: Anything, num_items_in_batch: Anything = None) -> Tensor:
        part = super().training_step(model, inputs, num_items_in_batch)
        self.parts.append(part.item())
        return part


class Doubling(Trainer):
    """Has a step of its own, on twice the loss."""

    def training_step(self, model: nn.Module, inputs: Anything, num_items_in_batch: Anything = None) -> Tensor:
        with self.compute_loss_context_manager():
            loss = 2 * self.compute_loss(model, inputs) / self.args.gradient_accumulation_steps
        self.accelerator.backward(loss)
        return loss.detach()


@pytest.mark.parametrize(("bf16", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_a_step_of_its_own_finds_the_precision_of_the_run(tmp_path: Path, bf16: bool, dtype: torch.dtype) -> None:
    run = Trainer(Line(), arguments(tmp_path, bf16=bf16))
    with run.compute_loss_context_manager():
        assert (torch.ones(2, 3) @ torch.ones(3, 5)).dtype == dtype


def losses_of(run: Trainer) -> list[float]:
    return [row["loss"] for row in run.state.log_history if "loss" in row]


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_step_that_calls_ours_changes_nothing(tmp_path: Path, accumulated: int) -> None:
    options = {"gradient_accumulation_steps": accumulated, "save_strategy": "no"}
    plain = Trainer(Line(), arguments(tmp_path / "plain", **options), train_dataset=points(8))
    plain.train()
    noticing = Noticing(Line(), arguments(tmp_path / "noticing", **options), train_dataset=points(8))
    noticing.parts = []
    noticing.train()
    assert line_after(noticing) == line_after(plain)
    assert losses_of(noticing) == losses_of(plain)
    sums = np.array(noticing.parts).reshape(4, accumulated).sum(axis=1)
    np.testing.assert_allclose(sums, losses_of(plain), rtol=1e-6)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_step_of_its_own_takes_the_place_of_ours(tmp_path: Path, accumulated: int) -> None:
    def run(kind: type[Trainer], rate: float) -> Trainer:
        options = {"gradient_accumulation_steps": accumulated, "save_strategy": "no", "optim": "sgd"}
        args = arguments(tmp_path, learning_rate=rate, max_grad_norm=0, **options)
        made = kind(Line(), args, train_dataset=points(8))
        made.train()
        return made

    doubled, plain = run(Doubling, 0.05), run(Trainer, 0.1)
    np.testing.assert_allclose(line_after(doubled), line_after(plain), rtol=1e-6)
    np.testing.assert_allclose(losses_of(doubled), [2 * each for each in losses_of(plain)], rtol=1e-6)


def test_a_step_outside_of_a_run_adds_a_gradient(tmp_path: Path) -> None:
    run = Trainer(Line(), arguments(tmp_path))
    batch = default_data_collator(points(2))
    loss = run.training_step(run.model, batch)
    assert loss.item() == run.prediction_step(run.model, batch, prediction_loss_only=True)[0]
    error = 0.5 * batch["x"] - batch["labels"]
    torch.testing.assert_close(run.model.a.grad, (2 * error * batch["x"]).mean())


def test_a_step_on_another_model_is_refused(tmp_path: Path) -> None:
    class Other(Trainer):
        def training_step(self, model: nn.Module, inputs: Anything, num_items_in_batch: Anything = None) -> Tensor:
            return super().training_step(Line(), inputs, num_items_in_batch)

    with pytest.raises(ValueError, match="must be given the model that the run gave"):
        Other(Line(), arguments(tmp_path), train_dataset=points(4)).train()


class Popping(Trainer):
    """Takes the labels out of the batch, as many scripts do, for a model that knows none."""

    def compute_loss(  # type: ignore[override]
        self, model: nn.Module, inputs: Anything, return_outputs: bool = False, num_items_in_batch: Anything = None
    ) -> Anything:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = (outputs["y"] - labels).abs().mean()
        return (loss, outputs) if return_outputs else loss


class Unlabelled(Line):
    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"y": x * self.a + self.b}


@pytest.mark.parametrize("model", [Line, Unlabelled])
def test_a_loss_of_its_own_may_take_labels_out_of_the_batch(tmp_path: Path, model: type[nn.Module]) -> None:
    seen: list[EvalPrediction] = []

    def keep(prediction: EvalPrediction) -> dict[str, float]:
        seen.append(prediction)
        return {"largest": float(prediction.label_ids.max())}

    options = {"label_names": ["labels"]}
    run = Popping(model(), arguments(tmp_path, **options), train_dataset=points(8), compute_metrics=keep)
    run.train()
    metrics = run.evaluate(points(5))
    np.testing.assert_allclose(seen[0].label_ids, [row["labels"] for row in points(5)])
    assert metrics["eval_largest"] == SLOPE * points(5)[-1]["x"]
    assert metrics["eval_loss"] == pytest.approx(np.abs(seen[0].predictions - seen[0].label_ids).mean())


def test_a_model_without_labels_needs_them_only_for_training(tmp_path: Path) -> None:
    found = Trainer(Unlabelled(), arguments(tmp_path)).predict([{"x": 1.0}, {"x": 4.0}])
    np.testing.assert_allclose(found.predictions, [0.5, 2.0])
    with pytest.raises(ValueError, match="forward of Unlabelled takes no labels"):
        Trainer(Unlabelled(), arguments(tmp_path), train_dataset=points(4))


class Twice:
    """A loader that is only read."""

    def __init__(self, loader: Anything) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return 2 * len(self.loader)

    def __iter__(self) -> Iterator[Anything]:
        yield from self.loader
        yield from self.loader


class TwiceTrainer(Trainer):
    def get_train_dataloader(self) -> Anything:
        return Twice(super().get_train_dataloader())

    def get_eval_dataloader(self, eval_dataset: object = None) -> Anything:
        return Twice(super().get_eval_dataloader(eval_dataset))


def test_a_trainer_may_have_loaders_of_its_own_kind(tmp_path: Path) -> None:
    options = {"max_steps": -1, "num_train_epochs": 2, "save_steps": 5}
    run = TwiceTrainer(Line(), arguments(tmp_path, **options), train_dataset=points(6), eval_dataset=points(4))
    assert run.train().global_step == 12
    assert run.predict(points(4)).predictions.shape == (8,)
    resumed = TwiceTrainer(Line(), arguments(tmp_path, **options), train_dataset=points(6), eval_dataset=points(4))
    resumed.train(resume_from_checkpoint=tmp_path / "checkpoint-5")
    assert resumed.state.global_step == 12


def test_a_given_schedule_that_goes_by_a_metric_is_saved_before_it_saw_one(tmp_path: Path) -> None:
    def build() -> Trainer:
        model = Line()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        schedule = ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=10, threshold_mode="abs")
        args = arguments(tmp_path, eval_strategy="steps", eval_steps=3)
        return Trainer(model, args, train_dataset=points(8), eval_dataset=points(4), optimizers=(optimizer, schedule))

    run = build()
    run.train()
    assert run.get_learning_rates() == [0.25]  # of two evaluations the second is no better
    resumed = build()
    resumed.train(resume_from_checkpoint=tmp_path / "checkpoint-2")
    assert (line_after(resumed), resumed.get_learning_rates()) == (line_after(run), [0.25])


class ByMetric:
    """A schedule of the user's that needs the metric."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def step(self, metrics: float, epoch: int | None = None) -> None:
        self.seen.append(metrics)

    def state_dict(self) -> dict[str, Anything]:
        return {"seen": self.seen}

    def load_state_dict(self, state_dict: dict[str, Anything]) -> None:
        self.seen = state_dict["seen"]


def test_a_schedule_whose_step_needs_a_metric_gets_it(tmp_path: Path) -> None:
    model, schedule = Line(), ByMetric()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    args = arguments(tmp_path, eval_strategy="steps", eval_steps=2)
    data = {"train_dataset": points(8), "eval_dataset": points(4)}
    run = Trainer(model, args, optimizers=(optimizer, schedule), **data)  # type: ignore[arg-type]
    run.train()
    assert schedule.seen == [row["eval_loss"] for row in run.state.log_history if "eval_loss" in row]
    assert len(schedule.seen) == 2


class Counting:
    """Metrics over batches, as scripts write them: tensors, and nothing but at the end."""

    def __init__(self) -> None:
        self.errors: list[float] = []

    def __call__(self, prediction: EvalPrediction, compute_result: bool) -> dict[str, float] | None:
        assert isinstance(prediction.predictions, Tensor) and isinstance(prediction.label_ids, Tensor)
        self.errors += torch.abs(prediction.predictions - prediction.label_ids).tolist()
        return {"error": sum(self.errors) / len(self.errors)} if compute_result else None


def test_metrics_by_batch_get_tensors_and_leave_a_prediction_its_outputs(tmp_path: Path) -> None:
    args = arguments(tmp_path, batch_eval_metrics=True)
    xs = np.array([row["x"] for row in points(9)])
    found = Trainer(Line(), args, compute_metrics=Counting()).predict(points(9))
    np.testing.assert_allclose(found.predictions, 0.5 * xs)
    assert found.metrics["test_error"] == pytest.approx(np.abs(1.5 * xs).mean())
    metrics = Trainer(Line(), args, compute_metrics=Counting()).evaluate(points(9))
    assert metrics["eval_error"] == pytest.approx(np.abs(1.5 * xs).mean())


def test_options_of_checkpointing_are_one_argument(tmp_path: Path) -> None:
    given: list[Anything] = []

    class Checkpointed(Line):
        def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Anything = None) -> None:
            given.append(gradient_checkpointing_kwargs)

    options = {"use_reentrant": False}
    Trainer(Checkpointed(), arguments(tmp_path, gradient_checkpointing=True))
    Trainer(Checkpointed(), arguments(tmp_path, gradient_checkpointing=True, gradient_checkpointing_kwargs=options))
    assert given == [None, options]


def test_the_tokenizer_of_a_collator_is_saved(tmp_path: Path) -> None:
    class Tokenizer:
        def save_pretrained(self, folder: str) -> None:
            (Path(folder) / "tokenizer.json").write_text("{}")

    class Collator:
        tokenizer = Tokenizer()

        def __call__(self, features: Anything) -> Anything:
            return default_data_collator(features, return_tensors="pt")

    run = Trainer(Line(), arguments(tmp_path), data_collator=Collator(), train_dataset=points(4))
    run.save_model()
    assert (tmp_path / "tokenizer.json").read_text() == "{}"
    with pytest.raises(ValueError, match="return_tensors must be 'pt', got 'np'"):
        default_data_collator(points(2), return_tensors="np")


def test_a_state_is_written_and_read_as_a_file(tmp_path: Path) -> None:
    state = TrainerState(epoch=1.5, global_step=7, best_metric=0.25, log_history=[{"loss": float("inf")}])
    state.save_to_json(str(tmp_path / "state.json"))
    assert TrainerState.load_from_json(tmp_path / "state.json") == state
    run = Trainer(Line(), arguments(tmp_path), train_dataset=points(8))
    run.train()
    read = TrainerState.load_from_json(tmp_path / "checkpoint-4" / "trainer_state.json")
    assert read.log_history == run.state.log_history[:-1]  # the last row tells the speed of the whole run
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="state.json: missing keys .*best_metric"):
        TrainerState.load_from_json(tmp_path / "state.json")


def test_the_handler_of_callbacks_has_the_methods_of_the_trainer(tmp_path: Path) -> None:
    handler = Trainer(Line(), arguments(tmp_path)).callback_handler
    assert handler.callback_list == "DefaultFlowCallback\nPrinterCallback\nModelCardCallback"
    handler.add_callback(ProgressCallback)
    assert handler.callback_list.endswith("\nProgressCallback")
    assert isinstance(handler.pop_callback(ProgressCallback), ProgressCallback)
    handler.remove_callback(ProgressCallback)
    assert "ProgressCallback" not in handler.callback_list


class Never(EarlyStoppingCallback):
    """Takes no evaluation for an improvement."""

    def check_metric_value(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metric_value: float
    ) -> None:
        self.early_stopping_patience_counter += 1


@pytest.mark.parametrize(("kind", "steps"), [(EarlyStoppingCallback, 4), (Never, 2)])
def test_what_an_improvement_is_can_be_overridden(
    tmp_path: Path, kind: type[EarlyStoppingCallback], steps: int
) -> None:
    options = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "loss", "save_strategy": "no"}
    data = {"train_dataset": points(8), "eval_dataset": points(8)}
    run = Trainer(Line(), arguments(tmp_path, **options), callbacks=[kind(early_stopping_patience=2)], **data)
    assert run.train().global_step == steps


class Stream(torch.utils.data.IterableDataset[dict[str, float]]):
    """Points one after the other, as torch has streams."""

    def __iter__(self) -> Iterator[dict[str, float]]:
        yield from points(8)


def test_a_stream_of_torch_is_refused_with_the_way_to_one_that_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train_dataset is of the type Stream.*IterableDataset, whose from_generator"):
        Trainer(Line(), arguments(tmp_path), train_dataset=Stream()).train()
    floats = datasets.Features({"x": datasets.Value("float32"), "labels": datasets.Value("float32")})
    stream = datasets.IterableDataset.from_generator(Stream().__iter__, features=floats)
    assert Trainer(Line(), arguments(tmp_path), train_dataset=stream).train().global_step == 4
