"""With save_total_limit=1 the best checkpoint is what a run leaves, and the last one is there while it lasts."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from training_helpers import Anything, pairs, trainer

from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.training import SparseEncoderTrainer, TrainerCallback, TrainerState
from sparse_encoder.training.checkpoints.folders import keep_checkpoint, list_checkpoints


class Worse:
    """Every evaluation is worse than the one before."""

    name, primary_metric, greater_is_better = "toy", "toy_x", True

    def __call__(self, model: Anything, output_path: str | None = None, epoch: float = -1, steps: int = -1) -> Anything:
        return {"toy_x": -float(steps)}


class Watch(TrainerCallback):
    """Write down which checkpoints there are, and perhaps get a signal."""

    def __init__(self, signal_at: int = 0) -> None:
        self.signal_at = signal_at
        self.seen: list[list[str]] = []

    def on_save(self, args: Anything, state: TrainerState, control: object, **_: object) -> None:
        self.seen.append(names(Path(args.output_dir)))

    def on_step_end(self, args: Anything, state: TrainerState, control: object, **_: object) -> None:
        if state.global_step == self.signal_at:
            signal.raise_signal(signal.SIGTERM)


def names(folder: Path) -> list[str]:
    return [path.name for path in list_checkpoints(folder)]


def make(folder: Path, watch: Watch, **options: Anything) -> SparseEncoderTrainer:
    every_step = dict.fromkeys(("eval_strategy", "save_strategy"), "steps") | {"eval_steps": 1, "save_steps": 1}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "toy_x", "save_total_limit": 1}
    settings = {**every_step, **best, "max_steps": 3, **options}
    return trainer(folder, evaluator=Worse(), eval_dataset=pairs(4), callbacks=[watch], **settings)


def test_the_last_one_goes_when_the_run_is_through(tmp_path: Path) -> None:
    watch = Watch()
    given = make(tmp_path, watch)
    given.train()
    assert watch.seen[1:] == [["checkpoint-1", "checkpoint-2"], ["checkpoint-1", "checkpoint-3"]]
    assert names(tmp_path) == ["checkpoint-1"]
    assert given.state.best_model_checkpoint == str(tmp_path / "checkpoint-1")


def test_more_are_kept_if_that_is_wanted(tmp_path: Path) -> None:
    make(tmp_path, Watch(), save_total_limit=2).train()
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-3"]


def test_a_stopped_run_keeps_the_last_one_to_go_on_from(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        make(tmp_path, Watch(signal_at=2), save_on_signal=True).train()
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-2"]


def test_nothing_goes_if_the_best_is_damaged(tmp_path: Path) -> None:
    make(tmp_path, Watch(), save_total_limit=2).train()
    (tmp_path / "checkpoint-1" / "trainer_state.json").write_text("{}")
    with pytest.raises(CheckpointError):
        keep_checkpoint(tmp_path / "checkpoint-1")
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-3"]
