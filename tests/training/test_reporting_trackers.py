"""The trackers themselves, where they are installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from training_helpers import pairs, trainer

from sparse_encoder.training.events.reporting import reporting_callbacks


def test_tensorboard_reads_what_a_run_wrote(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trainer(
        tmp_path,
        num_train_epochs=1,
        eval_dataset=pairs(5),
        eval_strategy="epoch",
        logging_dir=str(tmp_path / "log"),
        callbacks=reporting_callbacks("tensorboard"),
    )
    run.train()
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    rows = [row for row in run.state.log_history if "loss" in row]
    assert [each.step for each in events.Scalars("train/loss")] == [1, 2, 3]
    assert [each.value for each in events.Scalars("train/loss")] == pytest.approx([row["loss"] for row in rows])
    (loss,) = events.Scalars("eval/loss")
    assert (loss.step, loss.value) == (3, pytest.approx(run.state.log_history[3]["eval_loss"]))
    (settings,) = events.Tensors("args/text_summary")
    assert json.loads(settings.tensor_proto.string_val[0])["per_device_train_batch_size"] == 4


def test_wandb_takes_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    wandb: Any = pytest.importorskip("wandb")
    (callback,) = reporting_callbacks("wandb")
    run = trainer(tmp_path, num_train_epochs=1, run_name="first", callbacks=[callback])
    try:
        run.train()
        logged = callback.run
        assert (logged.project, logged.name) == ("sparse-encoder", "first")
        assert logged.config["per_device_train_batch_size"] == 4
        assert logged.summary["train/loss"] == run.state.log_history[2]["loss"]
        assert logged.summary["train/global_step"] == 3
        assert logged.summary["train_loss"] == run.state.log_history[-1]["train_loss"]
    finally:
        wandb.finish()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
