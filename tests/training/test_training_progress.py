from __future__ import annotations

import logging
from pathlib import Path

import pytest
from training_helpers import pairs, trainer

from sparse_encoder.training.events.progress import readable


def test_numbers_have_four_digits() -> None:
    assert readable({"loss": 1.23456, "rate": 3e-5, "step": 7}) == "loss: 1.235, rate: 3e-05, step: 7"


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


def test_without_a_bar_rows_go_to_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trainer(tmp_path, num_train_epochs=1)
    with caplog.at_level(logging.INFO, logger="sparse_encoder.training.events.progress"):
        run.train()
    rows = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert [row.partition(":")[0] for row in rows] == ["loss", "loss", "loss", "train_runtime"]
    assert capsys.readouterr() == ("", "")
