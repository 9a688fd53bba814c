"""Metrics of a user on what a model predicts or generates, with models and data of every kind."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset
from training_helpers import Anything, TinyEncoder, pairs, trainer

from sparse_encoder.training.arrays import concatenate
from sparse_encoder.training.events.metric import MetricCallback
from sparse_encoder.training.events.metric_data import MetricData
from sparse_encoder.training.outputs import EvalPrediction

ROWS, WIDTH, CLASSES = 7, 5, 3
GENERATOR = torch.Generator().manual_seed(5)
X = torch.randn(ROWS, WIDTH, generator=GENERATOR)
Y = torch.arange(ROWS) % CLASSES


class Linear(nn.Module):
    """Logits of classes from numbers, in the form that a test asks for."""

    def __init__(self, wrap: Callable[[Tensor], Anything] = lambda logits: logits) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.dropout = nn.Dropout(0.5)
        self.project = nn.Linear(WIDTH, CLASSES)
        self.wrap = wrap

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Anything:
        return self.wrap(self.project(self.dropout(x)))


class Given(nn.Module):
    """Returns or generates its own ids, without those of padding, in the type that a test asks for."""

    def __init__(self, dtype: torch.dtype = torch.int64) -> None:
        super().__init__()
        self.config = SimpleNamespace(pad_token_id=9, keys_to_ignore_at_inference=["cache"])
        self.dtype = dtype
        self.calls: list[dict[str, Any]] = []

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        ids = self._ids(input_ids, attention_mask)
        return {"loss": torch.tensor(1.0), "logits": ids.to(self.dtype), "cache": ids, "second": ids[:, 0]}

    def generate(self, input_ids: Tensor, attention_mask: Tensor, **options: Anything) -> Tensor:
        self.calls.append(options)
        return self._ids(input_ids, attention_mask)

    @staticmethod
    def _ids(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return input_ids[:, : int(attention_mask.sum(dim=1).max())]


class Pair(NamedTuple):
    first: Tensor
    logits: Tensor


@dataclass
class Output:
    logits: Tensor
    loss: Tensor


def logits_of(x: Tensor) -> np.ndarray[Any, Any]:
    result: np.ndarray[Any, Any] = Linear().project(x).detach().numpy()
    return result


class Kept:
    """A metric that keeps what it gets."""

    def __init__(self) -> None:
        self.predictions: Any = None
        self.labels: Any = None
        self.calls = 0

    def __call__(self, predictions: Anything, labels: Anything) -> dict[str, float]:
        self.predictions, self.labels = predictions, labels
        self.calls += 1
        return {"rows": float(len(next(iter(labels.values())) if isinstance(labels, dict) else labels))}


class Rows(TorchDataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return X[index], Y[index]


DATA: dict[str, Any] = {
    "columns": {"x": X, "labels": Y, "text": ["no number"] * ROWS},
    "columns of lists": {"x": X.tolist(), "label": Y.tolist()},
    "pair": (X, Y.numpy()),
    "pair of columns": ({"x": X}, {"anything": Y}),
    "dataset": Dataset.from_dict({"x": X.tolist(), "labels": Y.tolist(), "text": ["no number"] * ROWS}),
    "dataset of tensors": Dataset.from_dict({"x": X.tolist(), "labels": Y.tolist()}).with_format("torch"),
    "rows one after the other": Dataset.from_dict({"x": X.tolist(), "labels": Y.tolist()}).to_iterable_dataset(),
    "rows of pairs": Rows(),
    "list of rows": [{"x": X[index], "labels": int(Y[index])} for index in range(ROWS)],
}


@pytest.mark.parametrize("kind", sorted(DATA))
def test_every_row_of_any_data_reaches_the_metric_in_order(kind: str) -> None:
    kept = Kept()
    assert MetricCallback(kept, DATA[kind], batch_size=3).compute(Linear()) == {"eval_rows": ROWS}
    np.testing.assert_allclose(kept.predictions, logits_of(X), atol=1e-6)
    np.testing.assert_array_equal(kept.labels, Y.numpy())


def test_a_loader_is_used_as_it_is_and_an_array_is_its_own_input() -> None:
    kept = Kept()
    loader = DataLoader(TensorDataset(X, Y), batch_size=4)
    assert MetricCallback(kept, loader).compute(Linear()) == {"eval_rows": ROWS}
    np.testing.assert_allclose(kept.predictions, logits_of(X), atol=1e-6)
    with pytest.raises(ValueError, match="no labels"):
        MetricCallback(kept, X.numpy(), batch_size=2)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: (torch.tensor(0.5), logits),
        lambda logits: {"loss": torch.tensor(0.5), "logits": logits, "past": None},
        lambda logits: OrderedDict(logits=logits),
        lambda logits: Output(logits=logits, loss=torch.tensor(0.5)),
        lambda logits: Pair(torch.tensor(1.0), logits),
    ],
)
def test_one_output_is_one_array_whatever_the_model_returns(wrap: Callable[[Tensor], Anything]) -> None:
    kept = Kept()
    MetricCallback(kept, DATA["columns"], batch_size=4).compute(Linear(wrap))
    assert isinstance(kept.predictions, np.ndarray)
    np.testing.assert_allclose(kept.predictions, logits_of(X), atol=1e-6)


def test_several_outputs_and_labels_come_by_name_in_the_order_asked_for() -> None:
    kept = Kept()
    columns = {"x": X, "start_positions": Y, "end_positions": Y + 1}
    model = Linear(lambda logits: {"b": logits, "a": logits * 2, "loss": logits.sum()})
    MetricCallback(kept, columns, batch_size=4).compute(model)
    assert list(kept.predictions) == ["b", "a"] and list(kept.labels) == ["start_positions", "end_positions"]
    MetricCallback(kept, columns, ["a", "b"], ["end_positions"], batch_size=4).compute(model)
    assert list(kept.predictions) == ["a", "b"]
    np.testing.assert_array_equal(kept.labels, (Y + 1).numpy())
    MetricCallback(kept, columns, ["a"], batch_size=4).compute(model)
    np.testing.assert_allclose(kept.predictions, 2 * logits_of(X), atol=1e-5)
    with pytest.raises(ValueError, match=r"output_cols \['c'\] are no tensors among .*\['a', 'b', 'loss'\]"):
        MetricCallback(kept, columns, ["c"], batch_size=4).compute(model)


def test_the_three_forms_of_a_metric_give_the_same() -> None:
    def two(predictions: Anything, labels: Anything) -> dict[str, float]:
        return {"accuracy": (predictions.argmax(axis=1) == labels).mean()}

    def one(prediction: EvalPrediction) -> dict[str, float]:
        predictions, labels = prediction
        assert prediction[0] is predictions and prediction.label_ids is labels
        return two(predictions, labels)

    def optional(prediction: EvalPrediction, scale: float = 1) -> dict[str, float]:
        return {"eval_accuracy": scale * one(prediction)["accuracy"]}

    expected = float((logits_of(X).argmax(axis=1) == Y.numpy()).mean())
    for metric in (two, one, optional, lambda *both: two(*both)):
        values = MetricCallback(metric, DATA["columns"], batch_size=3).compute(Linear())
        assert values == {"eval_accuracy": pytest.approx(expected)}
        assert type(values["eval_accuracy"]) is float


def test_a_metric_must_return_numbers_by_name() -> None:
    def run(result: object) -> dict[str, float]:
        return MetricCallback(lambda predictions, labels: result, DATA["columns"], batch_size=3).compute(Linear())  # type: ignore[arg-type,return-value]

    assert run({"a": np.float32(0.5), "eval_b": torch.tensor(2), "c": np.array(3)}) == {
        "eval_a": 0.5,
        "eval_b": 2,
        "eval_c": 3,
    }
    with pytest.raises(TypeError, match="must return numbers by name, got float: 0.5"):
        run(0.5)
    with pytest.raises(TypeError, match=r"must return numbers, got \[1\] as 'a'"):
        run({"a": [1]})
    with pytest.raises(ValueError, match="not 3 arguments"):
        MetricCallback(lambda a, b, c: {}, DATA["columns"], batch_size=3)


IDS = [[1, 2], [3, 4], [5, 6, 7, 8], [2, 3]]
TEXTS = {"input_ids": IDS, "attention_mask": [[1] * len(row) for row in IDS], "labels": [[7], [8], [7, 8], [1]]}


def test_generations_are_filled_up_with_the_pad_id_and_labels_with_minus_100() -> None:
    kept, model = Kept(), Given()
    MetricCallback(
        kept, TEXTS, batch_size=2, predict_with_generate=True, generate_kwargs={"max_new_tokens": 3}
    ).compute(model)
    assert model.calls == [{"max_new_tokens": 3}] * 2  # no labels
    assert kept.predictions.tolist() == [[1, 2, 9, 9], [3, 4, 9, 9], [5, 6, 7, 8], [2, 3, 9, 9]]
    assert kept.labels.tolist() == [[7, -100], [8, -100], [7, 8], [1, -100]]
    model.config.pad_token_id = None
    callback = MetricCallback(kept, TEXTS, batch_size=2, predict_with_generate=True)
    callback.compute(model, processing_class=SimpleNamespace(pad_token_id=11))
    assert kept.predictions[0].tolist() == [1, 2, 11, 11]
    with pytest.raises(ValueError, match="pad_token_id in generate_kwargs"):
        callback.compute(model)


def test_logits_of_different_widths_are_filled_up_with_minus_100_and_16_bits_become_32() -> None:
    kept = Kept()
    for dtype in (torch.bfloat16, torch.float16):
        MetricCallback(kept, TEXTS, batch_size=2).compute(Given(dtype))
        assert list(kept.predictions) == ["logits", "second"]
        assert kept.predictions["logits"].dtype == np.float32
        assert kept.predictions["logits"][0].tolist() == [1, 2, -100, -100]
        assert kept.predictions["second"].tolist() == [1, 3, 5, 2]  # 1-D as it is


def test_arrays_are_filled_up_on_every_axis() -> None:
    joined = concatenate([np.ones((1, 2, 1)), np.full((2, 1, 3), 2.0)], -100)
    assert joined.shape == (3, 2, 3)
    assert joined[0].tolist() == [[1, -100, -100], [1, -100, -100]]
    assert joined[2].tolist() == [[2, 2, 2], [-100, -100, -100]]
    with pytest.raises(ValueError, match=r"different numbers of axes: \[1, 2\]"):
        concatenate([np.ones(2), np.ones((2, 2))], 0)


def test_the_main_input_is_the_encoders_and_models_that_cannot_generate_are_named() -> None:
    model = Given()
    model.encoder = SimpleNamespace(main_input_name="features")
    data = {"features": TEXTS["input_ids"], "attention_mask": TEXTS["attention_mask"], "labels": [1, 2, 3, 4]}
    kept = Kept()
    MetricCallback(kept, data, batch_size=4, predict_with_generate=True).compute(model)
    assert kept.predictions.shape == (4, 4)
    with pytest.raises(ValueError, match="begins with 'features'"):
        MetricCallback(kept, TEXTS, batch_size=4, predict_with_generate=True).compute(model)
    with pytest.raises(TypeError, match="Linear has none"):
        MetricCallback(kept, TEXTS, batch_size=4, predict_with_generate=True).compute(Linear())


def test_generations_in_a_dict_are_its_sequences() -> None:
    model, kept = Given(), Kept()
    plain = model.generate
    model.generate = lambda ids, **options: {"scores": None, "sequences": plain(ids, **options)}  # type: ignore[method-assign,assignment,return-value]
    MetricCallback(kept, TEXTS, batch_size=4, predict_with_generate=True).compute(model)
    assert kept.predictions.shape == (4, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "batch_size must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        (
            {"batch_size": 2, "label_cols": ["y"]},
            r"label_cols \['y'\] are not in eval_dataset, which has \['labels', 'x'\]",
        ),
        ({"batch_size": 2, "use_xla_generation": True}, "use_xla_generation=True is not supported"),
        ({"batch_size": 2, "compile_generation": True}, "compile_generation=True is not supported"),
        ({"batch_size": 2, "generate_kwargs": {"top_k": 1}}, r"generate_kwargs \['top_k'\] need predict_with_generate"),
        ({"batch_size": 2, "output_cols": ["a"], "predict_with_generate": True}, "output_cols do not apply"),
        ({"batch_size": 2, "when": "never"}, "unknown when 'never'"),
    ],
)
def test_what_does_not_apply_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MetricCallback(Kept(), DATA["columns"], **options)


def test_data_that_cannot_be_read_is_refused() -> None:
    for data, message in (
        ({"x": X, "labels": Y[:3]}, r"different lengths: \[3, 7\]"),
        ({"x": X[:0], "labels": Y[:0]}, "no rows"),
        ({"first": DATA["dataset"]}, r"must be one dataset, got several: \['first'\]"),
        ([(1, 2, 3)] * 4, "got 3 parts"),
    ):
        with pytest.raises(ValueError, match=message):
            MetricData(data, batch_size=2, label_columns=None)
    with pytest.raises(TypeError, match="must be a dataset"):
        MetricData(3, batch_size=2, label_columns=None)


class Noisy(nn.Module):
    """Draws from every generator, and keeps what it has computed, as rotary embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, 1)
        self.frozen = nn.Dropout(0.9).eval()
        self.cached: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training and not self.inner.training and not torch.is_grad_enabled()
        if self.cached is None:
            self.cached = torch.ones(WIDTH)
        noise = random.random() + np.random.rand() + torch.rand(())
        return torch.as_tensor(self.inner(x * self.cached) + noise)


def test_modes_gradients_and_random_numbers_are_as_before() -> None:
    model = Noisy()
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    expected = [torch.rand(()).item(), random.random(), np.random.rand()]
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    callback = MetricCallback(lambda p, y: {"sum": float(p.sum())}, (X, Y), batch_size=3)
    first = callback.compute(model, seed=1)
    assert [torch.rand(()).item(), random.random(), np.random.rand()] == expected
    assert model.training and model.inner.training and not model.frozen.training and torch.is_grad_enabled()
    assert model.cached is not None
    (model.inner(X) * model.cached).sum().backward()  # not possible with what inference_mode has made
    assert callback.compute(model, seed=1) == first != callback.compute(model, seed=2)
    failing = MetricCallback(lambda p, y: {}, DATA["columns"], batch_size=3)
    with pytest.raises(TypeError, match="input_ids"):
        failing.compute(Failing().train())


class Failing(nn.Module):
    def forward(self, input_ids: Tensor) -> Tensor:
        return input_ids


class Encoder(TinyEncoder):
    """The helpers' encoder, which also takes its columns by keyword."""

    def forward(
        self, features: Anything = None, input_ids: Anything = None, attention_mask: Anything = None
    ) -> Anything:
        if features is not None:
            return super().forward(features)
        return super().forward({"input_ids": input_ids, "attention_mask": attention_mask})["sentence_embedding"]


def metric_data(model: TinyEncoder) -> dict[str, Any]:
    return {**model.preprocess([row["anchor"] for row in pairs(9)]), "labels": torch.arange(9)}


def with_context(callback: MetricCallback, run: Anything) -> MetricCallback:
    """Give callbacks the function ``log``, as trainers do."""
    run.callback_handler.context.setdefault("log", run.log)
    return callback


def test_each_epoch_logs_once_and_training_is_the_same_with_and_without(tmp_path: Path) -> None:
    kept, runs = Kept(), []
    for with_metric in (False, True):
        torch.manual_seed(3)
        model = Encoder(dropout=0.3)
        run = trainer(tmp_path, model, num_train_epochs=3)
        if with_metric:
            run.add_callback(with_context(MetricCallback(kept, metric_data(model), batch_size=4), run))
        run.train()
        runs.append(run)
    plain, measured = runs
    weights = plain.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in measured.model.state_dict().items())
    assert kept.calls == 3
    rows = [row for row in measured.state.log_history if "eval_rows" in row]
    assert [(row["eval_rows"], row["epoch"], row["step"]) for row in rows] == [(9, 1, 3), (9, 2, 6), (9, 3, 9)]
    assert not any("eval_rows" in row for row in plain.state.log_history)


@pytest.mark.parametrize("when", ["epoch", "evaluate"])
def test_the_best_model_can_be_chosen_by_the_metric(tmp_path: Path, when: str) -> None:
    values = iter([0.3, 0.9, 0.5])
    torch.manual_seed(3)
    model = Encoder()
    callback = MetricCallback(lambda p, y: {"mine": next(values)}, metric_data(model), batch_size=4, when=when)
    run = trainer(
        tmp_path,
        model,
        num_train_epochs=3,
        eval_strategy="epoch",
        save_strategy="epoch",
        eval_dataset=pairs(6),
        metric_for_best_model="mine",
        load_best_model_at_end=True,
    )
    run.add_callback(with_context(callback, run))
    run.train()
    assert run.state.best_metric == 0.9 and run.state.best_global_step == 6
    history = [row["eval_mine"] for row in run.state.log_history if "eval_mine" in row]
    assert history == [0.3, 0.9, 0.5]
    if when == "epoch":
        assert "eval_mine" not in run.evaluate()


def test_an_evaluation_of_several_datasets_computes_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def counted(predictions: Anything, labels: Anything) -> dict[str, float]:
        calls.append(1)
        return {"mine": float(len(calls))}

    model = Encoder()
    callback = MetricCallback(counted, metric_data(model), batch_size=4, when="evaluate")
    sets = {"a": pairs(4), "b": pairs(5)}
    options = {"eval_dataset": sets, "eval_strategy": "steps", "eval_steps": 2, "max_steps": 4}
    run = trainer(tmp_path, model, callbacks=[callback], **options)
    run.train()
    assert len(calls) == 2
    assert [row["eval_mine"] for row in run.state.log_history if "eval_mine" in row] == [1.0, 2.0]
    assert run.evaluate()["eval_mine"] == 3.0  # a new evaluation, with both datasets
    assert run.evaluate()["eval_mine"] == 4.0
