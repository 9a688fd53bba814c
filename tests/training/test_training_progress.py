from __future__ import annotations

from pathlib import Path

import pytest
from training_helpers import arguments, pairs, trainer

from sparse_encoder.training import TrainerControl, TrainerState
from sparse_encoder.training.events.progress import PrinterCallback, ProgressCallback, readable


def test_numbers_have_four_digits() -> None:
    logs = {"loss": 1.23456, "rate": 3e-5, "step": 7, "total_flos": 1e9}
    assert readable(logs) == "loss: 1.235, rate: 3e-05, step: 7"
    assert "total_flos" in logs


def test_of_long_texts_the_length_is_shown() -> None:
    assert readable({"a": "word", "b": "x" * 101}) == "a: word, b: (a text of 101 characters)"
    assert readable({"a": "word"}, max_str_len=3) == "a: (a text of 4 characters)"
    with pytest.raises(ValueError, match="max_str_len must be >= 0, got -1"):
        ProgressCallback(max_str_len=-1)


class Stream:
    """A loader that cannot say how long it is."""

    def __len__(self) -> int:
        raise TypeError("no length")


def test_a_prediction_over_a_stream_has_a_bar_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    callback, args, state, control = ProgressCallback(), arguments("out"), TrainerState(), TrainerControl()
    for end in (callback.on_predict, callback.on_evaluate):
        for _ in range(3):
            callback.on_prediction_step(args, state, control, eval_dataloader=Stream())
        assert callback.prediction_bar is not None
        assert (callback.prediction_bar.n, callback.prediction_bar.total) == (3, None)
        end(args, state, control)
        assert callback.prediction_bar is None
    assert "3batch" in capsys.readouterr().err


def test_only_the_first_process_draws(capsys: pytest.CaptureFixture[str]) -> None:
    callback, args, control = ProgressCallback(), arguments("out"), TrainerControl()
    state = TrainerState(max_steps=2, is_world_process_zero=False)
    callback.on_train_begin(args, state, control)
    callback.on_prediction_step(args, state, control, eval_dataloader=[1, 2])
    callback.on_step_end(args, state, control)
    callback.on_log(args, state, control, logs={"loss": 1.0})
    callback.on_evaluate(args, state, control, metrics={})
    callback.on_train_end(args, state, control)
    assert capsys.readouterr() == ("", "")


def test_a_run_that_failed_leaves_no_bar_to_the_next() -> None:
    callback, args, control = ProgressCallback(), arguments("out"), TrainerControl()
    state = TrainerState(max_steps=2)
    callback.on_train_begin(args, state, control)
    first = callback.training_bar
    callback.on_train_begin(args, state, control)
    assert first is not None and first.disable  # tqdm marks a closed bar so
    assert callback.training_bar is not first
    callback.on_train_end(args, state, control)


def test_a_bar_shows_every_update_and_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trainer(
        tmp_path,
        disable_tqdm=False,
        run_name="splade",
        num_train_epochs=1,
        eval_dataset=pairs(5),
        eval_strategy="epoch",
    )
    run.train()
    shown = capsys.readouterr()
    assert "splade: 100%" in shown.err
    assert "3/3" in shown.err
    assert "1/1" in shown.err  # the evaluation's one batch
    rows = [row for row in shown.out.splitlines() if row]
    assert [row.partition(":")[0] for row in rows] == ["loss", "loss", "loss", "eval_loss", "train_runtime"]
    assert "document_regularizer_weight: 0.003" in rows[1]


def test_a_resumed_bar_begins_where_the_run_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 1}
    trainer(tmp_path, **options).train()
    capsys.readouterr()
    trainer(tmp_path, disable_tqdm=False, **options).train(tmp_path / "checkpoint-2")
    assert "2/3" in capsys.readouterr().err


def test_without_a_bar_rows_go_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer(tmp_path, num_train_epochs=1).train()
    shown = capsys.readouterr()
    assert [row.partition(":")[0] for row in shown.out.splitlines()] == ["loss", "loss", "loss", "train_runtime"]
    assert shown.err == ""


def test_only_the_first_process_of_a_machine_writes_rows(capsys: pytest.CaptureFixture[str]) -> None:
    callback, args, control = PrinterCallback(), arguments("out"), TrainerControl()
    callback.on_log(args, TrainerState(is_local_process_zero=False), control, logs={"loss": 1.0})
    callback.on_log(args, TrainerState(), control, logs={})
    assert capsys.readouterr().out == ""
    callback.on_log(args, TrainerState(is_world_process_zero=False), control, logs={"loss": 1.0})
    assert capsys.readouterr().out == "loss: 1\n"
