"""A search over the library's own encoders: each trial may choose a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_helpers import mixed_texts, write_masked_language_model
from training_helpers import Anything, arguments

from sparse_encoder import SparseEncoder, SparseEncoderTrainer

optuna = pytest.importorskip("optuna")

LENGTHS = [4, 12]


def rows(count: int) -> list[dict[str, str]]:
    questions, answers = mixed_texts(count, seed=1, longest=6), mixed_texts(count, seed=2, longest=9)
    return [{"question": question, "answer": answer} for question, answer in zip(questions, answers, strict=True)]


def test_the_best_model_is_in_the_folder_of_its_trial(tmp_path: Path) -> None:
    write_masked_language_model(tmp_path / "start")

    def init(trial: Anything) -> SparseEncoder:
        model = SparseEncoder(str(tmp_path / "start"), device="cpu")
        model.max_seq_length = 16 if trial is None else trial.params["length"]
        return model

    args = arguments(tmp_path / "out", num_train_epochs=1, eval_strategy="epoch", save_strategy="epoch")
    run = SparseEncoderTrainer(None, args, rows(8), rows(5), model_init=init)
    best = run.hyperparameter_search(
        lambda trial: {"learning_rate": 1e-3, "length": trial.suggest_categorical("length", LENGTHS)},
        n_trials=2,
        sampler=optuna.samplers.GridSampler({"length": LENGTHS}, seed=0),
    )
    assert len({each.value for each in best.run_summary.trials}) == 2
    assert run.model.max_seq_length == 16
    (folder,) = (tmp_path / "out" / f"run-{best.run_id}").glob("checkpoint-*")
    found = SparseEncoder(str(folder), device="cpu")
    assert found.max_seq_length == best.hyperparameters["length"]
    check = SparseEncoderTrainer(found, arguments(tmp_path / "check"), None, rows(5))
    assert check.evaluate()["eval_loss"] == pytest.approx(best.objective, rel=1e-6)


def test_the_tokenizer_comes_with_the_model_unless_one_was_given(tmp_path: Path) -> None:
    write_masked_language_model(tmp_path / "start")

    def init() -> SparseEncoder:
        return SparseEncoder(str(tmp_path / "start"), device="cpu")

    seen: list[bool] = []
    args = arguments(tmp_path / "out", max_steps=1)
    run = SparseEncoderTrainer(None, args, rows(8), model_init=init)
    first = run.processing_class
    run.train()
    context = run.callback_handler.context
    seen.append(run.processing_class is context["processing_class"] is run.model.tokenizer is not first)
    given = init().tokenizer
    run = SparseEncoderTrainer(None, args, rows(8), processing_class=given, model_init=init)
    run.train()
    seen.append(run.processing_class is run.callback_handler.context["processing_class"] is given)
    assert seen == [True, True]
