"""Datasets, samplers and loaders with only what the data room touches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset
from torch.utils.data import BatchSampler, DataLoader

from sparse_encoder.samplers import DefaultBatchSampler
from sparse_encoder.training.data.datasets import as_training_data
from sparse_encoder.training.data.loaders import LoaderSettings, build_loader
from sparse_encoder.training.data.rows import ConcatRows, Row

Anything = Any  # data, a setting


class InTurn(BatchSampler):
    """Take a batch of each dataset in turn, until the shortest has none."""

    def __init__(
        self,
        dataset: ConcatRows,
        batch_samplers: list[BatchSampler],
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        self.dataset, self.batch_samplers = dataset, batch_samplers
        self.batch_size = batch_samplers[0].batch_size
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)
        for sampler in self.batch_samplers:
            sampler.set_epoch(epoch)  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return min(map(len, self.batch_samplers)) * len(self.batch_samplers)

    def __iter__(self) -> Iterator[list[int]]:
        starts = [0, *self.dataset.cumulative_sizes]
        for batches in zip(*self.batch_samplers, strict=False):
            for start, batch in zip(starts, batches, strict=False):
                yield [start + index for index in batch]


class Numbered:
    """Rows that are read by number and know nothing of columns, of a kind of the user's own."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Anything:
        return self.rows[index]


def texts(letter: str, count: int) -> Dataset:
    return Dataset.from_dict({letter: [f"{letter}{i}" for i in range(count)]})


def keep(rows: list[Row]) -> dict[str, Anything]:
    """Collate to what was read: the values of each row."""
    return {"rows": ["/".join(str(value) for value in row.values()) for row in rows]}


def settings(**options: Anything) -> LoaderSettings:
    return LoaderSettings(**{"batch_size": 2, "drop_last": False, "even_batches": False, "seed": 42, **options})


def loader(
    data: Anything, *, collate: Anything = keep, accelerator: Anything = None, **options: Anything
) -> DataLoader:
    return build_loader(
        as_training_data(data, "train_dataset"),
        settings(**{"seed": 42, **options}),
        collate=collate,
        accelerator=Accelerator(cpu=True) if accelerator is None else accelerator,
        make_batch_sampler=DefaultBatchSampler,
        make_multi_dataset_batch_sampler=InTurn,
    )


def read(batches: Anything, epoch: int | None = None) -> list[list[str]]:
    """Return the rows of each batch of a pass."""
    if epoch is not None:
        batches.set_epoch(epoch)
    return [batch["rows"] for batch in batches]


class Process:
    """Stand in for an accelerator in one of several processes."""

    device = torch.device("cpu")

    def __init__(self, num_processes: int, process_index: int) -> None:
        self.num_processes, self.process_index = num_processes, process_index
