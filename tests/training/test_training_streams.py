"""Runs on streams: resumed in the middle of an epoch, with workers, in two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from data_helpers import loader, read, texts
from datasets import IterableDatasetDict
from distributed_helpers import in_processes
from training_helpers import Anything, digest, pairs, rows_of, splade_loss, tiny_encoder, trainer

from sparse_encoder.training import TrainerCallback
from sparse_encoder.training.data.loaders import skip_batches

STOP = 3  # updates of 2 batches each, within the first epoch


class Stop(TrainerCallback):
    def on_step_end(self, args: Anything, state: Anything, control: Anything, **context: Anything) -> None:
        control.should_training_stop = state.global_step == STOP


def streams(kind: str) -> Anything:
    """Return streams of 6 and 4 batches."""
    first = pairs(22).to_iterable_dataset(num_shards=2).shuffle(seed=1, buffer_size=5)
    second = pairs(13).rename_columns({"anchor": "query", "positive": "response"}).to_iterable_dataset()
    noisy = second.map(lambda row: {**row, "query": f"{row['query']} {torch.rand(()):.3f}"}, features=second.features)
    return first if kind == "one" else IterableDatasetDict({"a": first, "b": noisy})


def run(folder: Path, kind: str, workers: int, *, stop: bool, resume: bool = False) -> Anything:
    several: dict[str, Any] = {"loss": {"a": splade_loss, "b": splade_loss}, "prompts": {"a": "of a ", "b": ""}}
    training = trainer(
        folder,
        tiny_encoder(dropout=0.3),
        rows=streams(kind),
        max_steps=8,
        save_strategy="steps",
        save_steps=STOP,
        gradient_accumulation_steps=2,
        dataloader_num_workers=workers,
        callbacks=[Stop()] if stop else [],
        **(several if kind == "several" else {}),
    )
    training.train(resume_from_checkpoint=str(folder / f"checkpoint-{STOP}") if resume else None)
    return training


@pytest.mark.parametrize("kind", ["one", "several"])
def test_a_resumed_run_on_streams_ends_with_the_same_weights(kind: str, tmp_path: Path) -> None:
    straight = run(tmp_path / "straight", kind, 0, stop=False)
    rows = [row["loss"] for row in rows_of(straight) if "loss" in row]
    assert len(set(rows)) == 8
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        run(folder, kind, workers, stop=True)
        resumed = run(folder, kind, workers, stop=False, resume=True)
        assert [row["loss"] for row in rows_of(resumed) if "loss" in row] == rows
        expected = digest(straight.model)
        assert all(torch.equal(expected[name], weight) for name, weight in digest(resumed.model).items())


def share(rank: int, folder: str) -> list[torch.Tensor]:
    """Read streams in one of two processes, the second time without the first two batches."""
    data = {"x": texts("a", 15).to_iterable_dataset(), "y": texts("b", 19).to_iterable_dataset()}
    batches = loader(data, accelerator=Accelerator(cpu=True), num_workers=1)
    whole = read(batches, 1)
    batches.set_epoch(1)
    assert read(skip_batches(batches, 2)) == whole[2:]
    return [torch.tensor([[ord(row[0]), int(row[1:])] for row in batch]) for batch in whole]


def test_two_processes_share_the_batches_of_streams(tmp_path: Path) -> None:
    data = {"x": texts("a", 15).to_iterable_dataset(), "y": texts("b", 19).to_iterable_dataset()}
    shares = in_processes(share, ranks=2, folder=tmp_path)
    got = [[[f"{chr(letter)}{number}" for letter, number in batch.tolist()] for batch in each] for each in shares]
    whole = read(loader(data), 1)
    assert len(whole) == 18
    assert got == [whole[0::2], whole[1::2]]


def test_reading_leaves_the_epoch_of_a_stream_alone() -> None:
    """Workers have it in common, and each setting it while others read gave some of them another order of rows."""
    reader = loader({"a": streams("one")})
    batches = reader.dataset.dataset if hasattr(reader.dataset, "dataset") else reader.dataset
    (stream,) = batches.streams.values()
    batches.set_epoch(3)
    first = [row["anchor"] for batch in batches for row in batch]
    assert stream.epoch == 0
    batches.set_epoch(0)
    assert [row["anchor"] for batch in batches for row in batch] != first
