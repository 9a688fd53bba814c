from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from distributed_helpers import in_processes
from torch import Tensor, nn
from torch._dynamo.utils import counters
from training_helpers import TinyEncoder, pairs, tiny_encoder, trainer

from sparse_encoder.losses import CachedSpladeLoss, EmbeddingLoss, SparseMultipleNegativesRankingLoss
from sparse_encoder.modules import SparseAutoEncoder
from sparse_encoder.training import SparsityMonitorCallback, TrainerCallback
from sparse_encoder.training.events import sparsity

Anything = Any  # a setting or a context


class Scripted(TinyEncoder):
    """An encoder whose queries and documents have as many active terms as they are told."""

    def __init__(self, queries: int, documents: int) -> None:
        super().__init__()
        self.active = [queries, documents]
        self.passes = 0

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        weights: Tensor = super().forward(features)["sentence_embedding"] + 1.0
        if self.training:
            mask = torch.zeros(weights.shape[1])
            mask[: self.active[self.passes % 2]] = 1
            self.passes += 1
            weights = weights * mask
        return {**features, "sentence_embedding": weights}


def run(folder: Path, model: nn.Module, monitor: SparsityMonitorCallback, **options: Anything) -> Anything:
    options = {"max_steps": 6, "loss": SparseMultipleNegativesRankingLoss, **options}
    return trainer(folder, model, rows=pairs(24), callbacks=[monitor], **options)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.endswith("sparsity")]


def test_terms_are_counted_by_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    monitor = SparsityMonitorCallback(log=True)
    given = run(tmp_path, Scripted(3, 5), monitor, logging_steps=2)
    given.train()
    queries = [each for each in monitor.history if each.texts == "queries"]
    assert [(each.step, each.rows, each.active, each.empty) for each in queries] == [
        (2, 8, 3.0, 0.0),
        (4, 8, 3.0, 0.0),
        (6, 8, 3.0, 0.0),
    ]
    assert queries[0].histogram[:4] == (0, 0, 8, 0)  # 2 to 3 terms
    documents = [each for each in monitor.history if each.texts == "documents"]
    assert {each.active for each in documents} == {5.0}
    assert documents[0].dense == pytest.approx(5 / 17)
    assert warnings_of(caplog) == []


class Listener(TrainerCallback):
    """Keeps the rows that it is told."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_log(self, *_: object, logs: dict[str, float] | None = None, **context: object) -> None:
        self.rows.append(dict(logs or {}))


@pytest.mark.parametrize("log", [True, False])
def test_log_rows_have_the_active_terms_for_callbacks_and_in_the_history(tmp_path: Path, log: bool) -> None:
    listener = Listener()
    given = run(tmp_path, Scripted(3, 5), SparsityMonitorCallback(log=log), logging_steps=2)
    given.add_callback(listener)
    given.train()
    names = ("query_active_terms", "document_active_terms")
    for kept in (listener.rows, given.state.log_history):
        found = [tuple(row.get(name) for name in names) for row in kept if "loss" in row]
        assert found == [(3.0, 5.0) if log else (None, None)] * 3
        assert not [row for row in kept if "loss" not in row and set(names) & set(row)]  # the row at the end of the run


class Dead(TinyEncoder):
    """An encoder that finds no term in the first texts of one column, and 3 in all others."""

    def __init__(self, column: int, rows: int) -> None:
        super().__init__()
        self.column, self.rows, self.passes = column, rows, 0

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        weights: Tensor = super().forward(features)["sentence_embedding"] + 1.0
        is_dead = (torch.arange(len(weights)) < self.rows) & (self.passes % 2 == self.column)
        self.passes += 1
        weights = weights * (torch.arange(weights.shape[1]) < 3) * ~is_dead.unsqueeze(1)
        return {**features, "sentence_embedding": weights}


def test_dead_queries_are_told_with_a_remedy_of_their_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    monitor = SparsityMonitorCallback(stop=True)
    assert run(tmp_path, Dead(0, 2), monitor, max_steps=3).train().global_step == 3  # it is no collapse
    (message,) = warnings_of(caplog)
    assert message.startswith("step 1: 50.0% of the queries are dead: without an active term they find nothing")
    assert "Lower query_regularizer_weight, or add AntiZeroLoss" in message
    assert monitor.history[0].empty == 0.5
    assert SparsityMonitorCallback.from_state(json.loads(json.dumps(monitor.state()))).state() == monitor.state()


@pytest.mark.parametrize(
    ("column", "rows", "most_dead_queries", "told"),
    [(0, 1, 0.05, "dead"), (0, 1, 0.25, None), (0, 0, 0.0, None), (1, 2, 0.05, None), (0, 4, 0.05, "collapsed")],
)
def test_when_queries_are_dead(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    column: int,
    rows: int,
    most_dead_queries: float,
    told: str | None,
) -> None:
    monitor = SparsityMonitorCallback(most_dead_queries=most_dead_queries)
    run(tmp_path, Dead(column, rows), monitor, max_steps=2).train()
    messages = warnings_of(caplog)
    assert len(messages) == (told is not None)
    assert all(str(told) in message for message in messages)


def test_a_collapse_to_zero_is_told_once_with_step_and_remedy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path, Scripted(0, 5), SparsityMonitorCallback()).train()
    (message,) = warnings_of(caplog)
    assert message.startswith("step 1: 100% of the queries have no active term")
    assert "lower query_regularizer_weight" in message


def test_a_collapse_may_end_the_run(tmp_path: Path) -> None:
    assert run(tmp_path, Scripted(4, 0), SparsityMonitorCallback(stop=True)).train().global_step == 1


def test_a_run_without_log_rows_is_judged_at_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    monitor = SparsityMonitorCallback()
    assert run(tmp_path, Scripted(0, 5), monitor, logging_strategy="no").train().global_step == 6
    (message,) = warnings_of(caplog)
    assert message.startswith("step 6: 100% of the queries have no active term")
    assert counted(monitor) == [("queries", 24, 0.0), ("documents", 24, 5.0)]


@pytest.mark.parametrize("logging", [{"logging_strategy": "no"}, {"logging_steps": 500}, {"logging_strategy": "epoch"}])
def test_a_run_without_log_rows_may_be_ended_by_a_collapse(
    tmp_path: Path, logging: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sparsity.JUDGE_EVERY == 500
    monkeypatch.setattr(sparsity, "JUDGE_EVERY", 2)
    monitor = SparsityMonitorCallback(stop=True)
    assert run(tmp_path, Scripted(4, 0), monitor, **logging).train().global_step == 2
    assert [each.step for each in monitor.history] == [2, 2]


def test_a_log_row_has_all_texts_and_begins_the_count_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparsity, "JUDGE_EVERY", 3)
    logged, rest = SparsityMonitorCallback(), SparsityMonitorCallback()
    run(tmp_path / "logged", Scripted(3, 5), logged, logging_steps=3).train()
    assert [(each.step, each.rows) for each in logged.history if each.texts == "queries"] == [(3, 12), (6, 12)]
    run(tmp_path / "rest", Scripted(3, 5), rest, logging_steps=2, max_steps=5).train()
    assert [(each.step, each.rows) for each in rest.history if each.texts == "queries"] == [(2, 8), (4, 8), (5, 4)]


class Broken(Scripted):
    """An encoder that gives some of its texts weights that are not finite."""

    def __init__(self, value: float, rows: int) -> None:
        super().__init__(3, 5)
        self.value, self.rows = value, rows

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        returned = super().forward(features)
        is_broken = torch.arange(len(returned["sentence_embedding"])) < self.rows
        weights = returned["sentence_embedding"].where(~is_broken.unsqueeze(1), self.value)
        return {**returned, "sentence_embedding": weights}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_no_collapse(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: float
) -> None:
    monitor = SparsityMonitorCallback(most_empty=0, stop_words=None)
    run(tmp_path, Broken(value, rows=3), monitor, max_steps=2).train()
    queries, documents = warnings_of(caplog)
    assert queries.startswith("step 1: 3 of 4 queries have weights that are NaN or infinite. Lower learning_rate")
    assert documents.startswith("step 1: 3 of 4 documents have weights")
    assert counted(monitor) == [("queries", 1, 3.0), ("documents", 1, 5.0)] * 2
    assert {(each.not_finite, each.empty, sum(each.histogram)) for each in monitor.history} == {(3, 0.0, 1)}
    assert SparsityMonitorCallback.from_state(json.loads(json.dumps(monitor.state()))).history == monitor.history


@pytest.mark.parametrize(("rows", "steps"), [(2, 2), (4, 1)])
def test_many_texts_that_are_not_finite_may_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rows: int, steps: int
) -> None:
    monitor = SparsityMonitorCallback(stop=True, log=True)
    assert run(tmp_path, Broken(float("nan"), rows), monitor, max_steps=2).train().global_step == steps
    assert len(warnings_of(caplog)) == 2
    assert not any("no active term" in message for message in warnings_of(caplog))


def test_dense_texts_are_told_after_the_warm_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path, Scripted(3, 16), SparsityMonitorCallback()).train()
    (message,) = warnings_of(caplog)
    assert message.startswith("step 3: the documents activate 16 terms, 94% of the vocabulary")
    assert "Raise document_regularizer_weight" in message


def test_weight_on_stop_words_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = Scripted(4, 4)
    names = ["the", "of", "and", *(f"term{i}" for i in range(14))]
    model.tokenizer = SimpleNamespace(get_vocab=lambda: {name: i for i, name in enumerate(names)})
    run(tmp_path, model, SparsityMonitorCallback(most_stop_words=0.6), save_strategy="no").train()
    messages = warnings_of(caplog)
    assert len(messages) == 2
    assert "lies on stop words" in messages[0]


def test_units_of_an_autoencoder_are_no_stop_words(tmp_path: Path) -> None:
    model = Scripted(4, 4)
    names = [*(f"term{i}" for i in range(17)), "the", "of"]  # more of them than the model has units
    model.tokenizer = SimpleNamespace(get_vocab=lambda: {name: i for i, name in enumerate(names)})
    model.autoencoder = SparseAutoEncoder(input_dim=3, hidden_dim=17, k=2)
    monitor = SparsityMonitorCallback()
    run(tmp_path, model, monitor, save_strategy="no").train()
    assert {each.active for each in monitor.history} == {4.0}
    assert {each.stop_word_mass for each in monitor.history} == {0.0}


def test_the_model_is_watched_in_training_only_and_released(tmp_path: Path) -> None:
    model = tiny_encoder()
    monitor = SparsityMonitorCallback()
    given = run(tmp_path, model, monitor, eval_dataset=pairs(8), eval_strategy="steps", eval_steps=1, max_steps=2)
    given.train()
    assert sum(each.rows for each in monitor.history if each.texts == "queries") == 8
    assert len(model._forward_hooks) == 0


def test_every_trainer_of_a_sparse_encoder_has_one(tmp_path: Path) -> None:
    names = [type(each).__name__ for each in trainer(tmp_path).callback_handler.callbacks]
    assert names.count("SparsityMonitorCallback") == 1
    own = SparsityMonitorCallback(stop=True)
    given = trainer(tmp_path, callbacks=[own])
    found = [each for each in given.callback_handler.callbacks if isinstance(each, SparsityMonitorCallback)]
    assert found == [own]


def test_the_run_is_the_same_without_it(tmp_path: Path) -> None:
    left, right = trainer(tmp_path, tiny_encoder(dropout=0.3)), trainer(tmp_path, tiny_encoder(dropout=0.3))
    right.remove_callback(SparsityMonitorCallback)
    for each in (left, right):
        each.train()
    for name, tensor in left.model.state_dict().items():
        assert torch.equal(tensor, right.model.state_dict()[name])


@pytest.mark.parametrize("name", ["most_empty", "most_dense", "most_stop_words", "patience", "most_dead_queries"])
def test_parts_are_between_0_and_1(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be between 0 and 1, got 2"):
        SparsityMonitorCallback(**{name: 2})


def test_columns_that_are_no_terms_of_the_vocabulary_are_no_stop_words(tmp_path: Path) -> None:
    model = Scripted(4, 4)
    model.tokenizer = SimpleNamespace(get_vocab=lambda: {"the": 0, "of": 1, "thing": 2})  # 17 columns
    monitor = SparsityMonitorCallback()
    run(tmp_path, model, monitor, save_strategy="no").train()
    assert {each.stop_word_mass for each in monitor.history} == {0.0}


class Wide(TinyEncoder):
    """An encoder whose documents have all terms, and whose queries have 2 of them."""

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        weights: Tensor = super().forward(features)["sentence_embedding"] + 1.0
        is_query = features["input_ids"][:, :1] == self.preprocess(["what"])["input_ids"]  # (B, 1)
        return {**features, "sentence_embedding": weights.where(~is_query | (torch.arange(17) < 2), 0)}


def counted(monitor: SparsityMonitorCallback) -> list[tuple[str, int, float]]:
    return [(each.texts, each.rows, each.active) for each in monitor.history]


@pytest.mark.parametrize("accumulated", [1, 2])
def test_mini_batches_of_a_column_are_counted_once_as_that_column(tmp_path: Path, accumulated: int) -> None:
    def cached(model: nn.Module) -> nn.Module:
        ranking = SparseMultipleNegativesRankingLoss(model)
        return CachedSpladeLoss(model, ranking, 3e-3, 5e-3, mini_batch_size=3)

    monitor = SparsityMonitorCallback()
    options = {"max_steps": 1, "loss": cached, "gradient_accumulation_steps": accumulated}
    run(tmp_path, Wide(), monitor, per_device_train_batch_size=8, **options).train()
    rows = 8 * accumulated
    assert counted(monitor) == [("queries", rows, 2.0), ("documents", rows, 17.0)]


class Backwards(EmbeddingLoss):
    """A loss that embeds documents first, and both columns twice."""

    def forward(self, sentence_features: list[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        queries, documents = sentence_features
        passes = [self.embed_column(dict(each)) for each in (documents, documents, queries, queries)]
        return torch.stack([each.square().mean() for each in passes]).sum()

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        return embeddings[0].mean()

    def get_config_dict(self) -> dict[str, Any]:
        return {}


def test_a_loss_may_embed_its_columns_in_any_order_and_often(tmp_path: Path) -> None:
    monitor = SparsityMonitorCallback()
    run(tmp_path, Wide(), monitor, max_steps=1, loss=Backwards).train()
    assert counted(monitor) == [("queries", 4, 2.0), ("documents", 4, 17.0)]


class Joined(Backwards):
    """A loss that makes new features of the columns it gets."""

    def forward(self, sentence_features: list[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        texts = {name: each.repeat(2, 1) for name, each in sentence_features[1].items()}
        return self.embed_column(texts).square().mean()


def test_texts_that_no_column_holds_get_no_remedy_of_a_column(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    monitor = SparsityMonitorCallback(patience=0)
    run(tmp_path, Wide(), monitor, max_steps=1, loss=Joined).train()
    assert counted(monitor) == [("texts", 8, 17.0)]
    (message,) = warnings_of(caplog)
    assert message.startswith("step 1: the texts activate 17 terms")
    assert "Raise the regularizers' weights" in message


def test_what_was_told_and_the_history_go_on_with_a_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"save_strategy": "steps", "save_steps": 2, "restore_callback_states_from_checkpoint": True}
    first = SparsityMonitorCallback(stop_words=["The"])
    run(tmp_path, Scripted(0, 5), first, max_steps=4, **options).train()
    assert len(warnings_of(caplog)) == 1
    again = run(tmp_path, Scripted(0, 5), SparsityMonitorCallback(), max_steps=4, **options)
    again.train(resume_from_checkpoint=tmp_path / "checkpoint-2")
    assert len(warnings_of(caplog)) == 1
    (monitor,) = [each for each in again.callback_handler.callbacks if isinstance(each, SparsityMonitorCallback)]
    assert monitor.history == first.history
    assert monitor.stop_words == {"the"}


def uneven(rank: int, folder: str, logging_strategy: str = "steps") -> Anything:
    """Train where the model finds no terms in the second process only."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("sparse_encoder.training.events.sparsity").addHandler(handler)
    monitor = SparsityMonitorCallback(most_empty=0.4, stop=True)
    model = Scripted(0, 0) if rank else Scripted(3, 5)
    options = {"ddp_find_unused_parameters": True, "logging_strategy": logging_strategy}
    given = run(Path(folder) / "run", model, monitor, **options)
    return {"steps": given.train().global_step, "counted": counted(monitor), "told": told}


def uneven_without_log_rows(rank: int, folder: str) -> Anything:
    """Do the same, by the monitor's own counter."""
    sparsity.JUDGE_EVERY = 1
    return uneven(rank, folder, logging_strategy="no")


@pytest.mark.parametrize("work", [uneven, uneven_without_log_rows])
def test_processes_judge_their_texts_together_and_stop_together(tmp_path: Path, work: Anything) -> None:
    first, second = in_processes(work, ranks=2, folder=tmp_path)
    assert first["steps"] == second["steps"] == 1
    assert first["counted"] == second["counted"] == [("queries", 8, 1.5), ("documents", 8, 2.5)]
    assert [each[:30] for each in first["told"]] == ["step 1: 50% of the queries hav", "step 1: 50% of the documents h"]
    assert second["told"] == []


def test_a_compiled_model_is_counted_alike_and_the_counting_is_not_compiled(tmp_path: Path) -> None:
    counters.clear()
    monitor, compiled = SparsityMonitorCallback(), SparsityMonitorCallback()
    run(tmp_path / "plain", tiny_encoder(), monitor, max_steps=2).train()
    options = {"torch_compile": True, "torch_compile_backend": "eager"}
    run(tmp_path / "compiled", tiny_encoder(), compiled, max_steps=2, **options).train()
    assert counted(compiled) == counted(monitor) != []
    assert not any("data_ptr" in reason for reason in counters["graph_break"])
