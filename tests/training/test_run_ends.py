"""How runs end and go on: inside an epoch, by a callback, by numbers that are no numbers, by a signal."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler
from training_helpers import digest, pairs, rows_of, tiny_encoder, trainer

from sparse_encoder.losses import EmbeddingLoss, SparseMultipleNegativesRankingLoss
from sparse_encoder.training import SparseEncoderTrainer, TrainerCallback, TrainerControl, TrainerState
from sparse_encoder.training.best import metric_of, note_best

Anything = Any  # a setting or a context


class Nothing(EmbeddingLoss):
    """A loss that is never a number, from a call on."""

    def __init__(self, model: nn.Module, start: int = 0) -> None:
        super().__init__(model)
        self.start, self.calls = start, 0

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        self.calls += 1
        factor = math.nan if self.calls > self.start else 1.0
        return torch.stack([each.mean() for each in embeddings]).sum() * factor

    def get_config_dict(self) -> dict[str, Any]:
        return {}


def same(left: SparseEncoderTrainer, right: SparseEncoderTrainer) -> bool:
    theirs = digest(right.model)
    return all(torch.equal(tensor, theirs[name]) for name, tensor in digest(left.model).items())


def run(folder: Path, seed: int = 3, **options: Anything) -> SparseEncoderTrainer:
    options = {"rows": pairs(20), "logging_steps": 2, **options}
    return trainer(folder, tiny_encoder(dropout=0.3, seed=seed), **options)


def test_a_run_that_ends_inside_an_epoch_goes_on_in_it(tmp_path: Path) -> None:
    options = {"save_strategy": "epoch", "lr_scheduler_type": "constant", "max_steps": 8}
    options["loss"] = SparseMultipleNegativesRankingLoss  # no weights that go by the length of the run
    straight = run(tmp_path / "straight", **options)
    straight.train()
    run(tmp_path / "parts", **{**options, "max_steps": 3}).train()  # of 5 updates of the epoch
    resumed = run(tmp_path / "parts", seed=9, **options)
    resumed.train(resume_from_checkpoint=True)
    assert same(resumed, straight)
    assert resumed.state.epoch == straight.state.epoch == 1.6


class StopEpoch(TrainerCallback):
    def on_step_end(self, args: Anything, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if state.global_step == 2:
            control.should_epoch_stop = True


def test_an_epoch_that_a_callback_has_ended_stays_ended(tmp_path: Path) -> None:
    options = {"save_strategy": "steps", "save_steps": 1, "num_train_epochs": 2}
    straight = run(tmp_path / "straight", callbacks=[StopEpoch], **options)
    straight.train()
    resumed = run(tmp_path / "resumed", seed=9, callbacks=[StopEpoch], **options)
    resumed.train(resume_from_checkpoint=tmp_path / "straight" / "checkpoint-2")
    assert same(resumed, straight)
    assert rows_of(resumed)[:-1] == rows_of(straight)[:-1]


@pytest.mark.parametrize("options", [{"logging_strategy": "no"}, {"logging_steps": 300}])
def test_numbers_that_are_none_end_a_run_that_neither_logs_nor_saves(options: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_encoder()
    given = trainer(tmp_path, model, loss=Nothing(model), max_steps=40, **options)
    with pytest.raises(FloatingPointError, match="10 updates in a row"):
        given.train()
    assert given.state.global_step < 12


def test_a_few_at_the_end_are_told_and_make_no_loss_of_zero(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_encoder()
    output = trainer(tmp_path, model, loss=Nothing(model), max_steps=4, logging_strategy="no").train()
    assert math.isnan(output.training_loss)
    assert "4 updates were left out" in caplog.text


class SignalIn(TrainerCallback):
    """Tell the process to end while the last evaluation runs."""

    def on_evaluate(self, args: Anything, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if state.global_step == state.max_steps:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_behind_the_last_update_is_not_too_late(tmp_path: Path) -> None:
    options = {"eval_dataset": pairs(5), "eval_strategy": "epoch", "num_train_epochs": 1, "save_strategy": "best"}
    given = run(tmp_path, callbacks=[SignalIn], save_on_signal=True, metric_for_best_model="loss", **options)
    given.state.best_metric = -1.0
    with pytest.raises(SystemExit) as stopped:
        given.train()
    assert stopped.value.code == 143
    assert (tmp_path / "checkpoint-5").is_dir()


def duplicates(count: int, distinct: int) -> Dataset:
    draw = random.Random(0)
    texts = [f"text {draw.randrange(distinct)}" for _ in range(count)]
    return Dataset.from_dict({"anchor": texts, "positive": [f"{text} again" for text in texts]})


def test_epochs_of_different_lengths_are_all_counted(tmp_path: Path) -> None:
    given = trainer(
        tmp_path,
        rows=duplicates(40, 11),
        batch_sampler="no_duplicates",
        num_train_epochs=6,
        save_strategy="steps",
        save_steps=1000,
    )
    lengths = []
    loader = given.get_train_dataloader()
    for epoch in range(6):
        loader.set_epoch(epoch)
        lengths.append(len(list(loader)))
    assert len(set(lengths)) > 1
    assert given.train().global_step == given.state.max_steps == sum(lengths)
    assert (tmp_path / f"checkpoint-{sum(lengths)}").is_dir()
    assert set(given.get_learning_rates()) == {0.0}


class OwnSampler(SparseEncoderTrainer):
    def get_batch_sampler(
        self, dataset: Anything, batch_size: int, drop_last: bool, *_: object, **options: Anything
    ) -> BatchSampler:
        return BatchSampler(RandomSampler(dataset, generator=options["generator"]), batch_size, drop_last)


class AtEachEpoch(TrainerCallback):
    """Looks around when an epoch has ended."""

    def __init__(self, look: Callable[[], object]) -> None:
        self.look = look

    def on_epoch_end(self, *_: object, **context: object) -> None:
        self.look()


class OwnLoader(SparseEncoderTrainer):
    def get_train_dataloader(self) -> DataLoader[Anything]:
        return DataLoader(self.train_dataset, batch_size=4, shuffle=True, collate_fn=self.data_collator)


@pytest.mark.parametrize("kind", [OwnSampler, OwnLoader])
def test_torchs_own_samplers_are_resumed_exactly(kind: type[SparseEncoderTrainer], tmp_path: Path) -> None:
    def build(folder: Path, seed: int) -> SparseEncoderTrainer:
        plain = run(folder, seed, save_strategy="steps", save_steps=1, num_train_epochs=2)
        return kind(plain.model, plain.args, pairs(20), loss=plain.given_loss)

    straight = build(tmp_path / "straight", 3)
    straight.train()
    for step in (2, 7):
        resumed = build(tmp_path / f"resumed-{step}", 9)
        torch.rand(step)
        resumed.train(resume_from_checkpoint=tmp_path / "straight" / f"checkpoint-{step}")
        assert same(resumed, straight)


def test_workers_that_are_kept_from_epoch_to_epoch_end_with_the_run(tmp_path: Path) -> None:
    given = run(tmp_path, num_train_epochs=2, dataloader_num_workers=2, dataloader_persistent_workers=True)
    before = set(multiprocessing.active_children())
    started = []
    given.add_callback(AtEachEpoch(lambda: started.append(set(multiprocessing.active_children()) - before)))
    given.train()
    assert len(started[0]) == 2
    assert started[1] == started[0]
    assert not any(process.is_alive() for process in started[0])


WORKERS = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}


class Children(TrainerCallback):
    """Notes which processes there are when batches are read, and fails if it is to."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.before, self.fails_at = set(multiprocessing.active_children()), fails_at
        self.evaluating: set[Any] = set()
        self.training: set[Any] = set()

    def on_step_end(self, args: Anything, state: TrainerState, control: TrainerControl, **_: object) -> None:
        self.training |= set(multiprocessing.active_children()) - self.before
        if state.global_step == self.fails_at:
            raise KeyboardInterrupt

    def on_prediction_step(self, *_: object, **__: object) -> None:
        self.evaluating |= set(multiprocessing.active_children()) - self.before - self.training

    def left(self) -> set[Any]:
        return {each for each in self.training | self.evaluating if each.is_alive()}


def test_workers_of_evaluations_and_predictions_end_with_each(tmp_path: Path) -> None:
    children = Children()
    given = run(tmp_path, max_steps=2, eval_dataset=pairs(5), callbacks=[children], **WORKERS)
    for number, go_through in enumerate((given.evaluate, given.predict), start=1):
        go_through(pairs(5))
        assert len(children.evaluating) == number
        assert not children.left()
    given.args.eval_strategy = "epoch"
    given.train()
    assert len(children.evaluating) == 3
    assert len(children.training) == 1
    assert not children.left()


@pytest.mark.parametrize("resumes", [False, True])
def test_workers_end_when_a_run_is_broken_off(resumes: bool, tmp_path: Path) -> None:
    if resumes:
        run(tmp_path, max_steps=1, save_strategy="steps", save_steps=1).train()
    children = Children(fails_at=2)
    options = {"save_strategy": "steps", "save_steps": 1, **WORKERS}
    given = run(tmp_path, max_steps=4, callbacks=[children], **options)
    with pytest.raises(KeyboardInterrupt) as told:
        given.train(resume_from_checkpoint=resumes)
    assert told.tb is not None  # the frames of the run are still held
    assert len(children.training) == 1
    assert not children.left()


def test_an_evaluation_at_the_start_does_not_move_the_schedule(tmp_path: Path) -> None:
    options = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch", "eval_dataset": pairs(5)}
    given = run(tmp_path, eval_on_start=True, num_train_epochs=1, **options)
    given.train()
    assert given.lr_scheduler.state_dict()["last_epoch"] == 1


def test_freed_memory_is_given_back_every_so_many_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparse_encoder.training import loop

    cleared: list[int] = []
    given = run(tmp_path, max_steps=7, torch_empty_cache_steps=3)
    monkeypatch.setattr(loop, "clear_device_cache", lambda: cleared.append(given.state.global_step))
    given.train()
    assert cleared == [3, 6]


def test_parts_that_are_frozen_in_evaluation_mode_stay_so(tmp_path: Path) -> None:
    class Frozen(TrainerCallback):
        def on_train_begin(self, args: Anything, state: Anything, control: Anything, **context: Anything) -> None:
            context["model"].dropout.eval()

    given = run(tmp_path, callbacks=[Frozen], eval_dataset=pairs(5), eval_strategy="steps", eval_steps=1, max_steps=2)
    given.train()
    assert given.model.training and not given.model.dropout.training


def test_an_evaluator_finds_its_folder(tmp_path: Path) -> None:
    from sparse_encoder.evaluation import SentenceEvaluator

    class Writes(SentenceEvaluator):
        def __call__(self, model: Anything, output_path: Anything = None, *_: object, **__: object) -> dict[str, float]:
            Path(output_path, "result.txt").write_text("fine")
            return {"score": 1.0}

    assert run(tmp_path, evaluator=Writes()).evaluate()["eval_score"] == 1.0
    assert (tmp_path / "eval" / "result.txt").is_file()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_the_best(value: float, tmp_path: Path) -> None:
    args = run(tmp_path, eval_dataset=pairs(5), metric_for_best_model="score").args
    state = TrainerState(global_step=4)
    assert not note_best(args, state, {"eval_score": value})
    assert note_best(args, state, {"eval_score": 0.5})
    assert not note_best(args, state, {"eval_score": 0.5})
    assert (state.best_metric, state.best_global_step) == (0.5, 4)
    with pytest.raises(KeyError, match="eval_other"):
        metric_of({"eval_score": 1.0}, "other")
