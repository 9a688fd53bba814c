from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_helpers import TinyEncoder, pairs, tiny_encoder, trainer

from sparse_encoder.losses import SparseMultipleNegativesRankingLoss
from sparse_encoder.modules import SparseAutoEncoder
from sparse_encoder.training import SparsityMonitorCallback

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
    rows = [row for row in given.state.log_history if "loss" in row]
    assert "query_active_terms" not in rows[0]  # callbacks get a copy
    assert warnings_of(caplog) == []


def test_a_collapse_to_zero_is_told_once_with_step_and_remedy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path, Scripted(0, 5), SparsityMonitorCallback()).train()
    (message,) = warnings_of(caplog)
    assert message.startswith("step 1: 100% of the queries have no active term")
    assert "lower query_regularizer_weight" in message


def test_a_collapse_may_end_the_run(tmp_path: Path) -> None:
    assert run(tmp_path, Scripted(4, 0), SparsityMonitorCallback(stop=True)).train().global_step == 1


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


@pytest.mark.parametrize("name", ["most_empty", "most_dense", "most_stop_words", "patience"])
def test_parts_are_between_0_and_1(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be between 0 and 1, got 2"):
        SparsityMonitorCallback(**{name: 2})
