"""From which of several datasets the next batch comes: in turn, or in a random order that uses every batch once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence, Sized
from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
from torch.utils.data import BatchSampler

from sparse_encoder.samplers.default import DefaultBatchSampler, draws_with_others
from sparse_encoder.samplers.randomness import check_epoch, new_generator, shuffled


class ConcatenatedDatasets(Protocol):
    """Datasets one after another: a ``torch.utils.data.ConcatDataset``, or whatever has ``datasets``."""

    @property
    def datasets(self) -> Sequence[Sized]:
        """The datasets, in the order of their rows."""


class Pass(NamedTuple):
    """One pass over several datasets."""

    generator: torch.Generator
    """Shared by the pass and the samplers of the datasets."""
    batches: list[Iterator[list[int]]]
    """Of each dataset, by row numbers of all datasets together; a batch is drawn when it is asked for."""


class MultiDatasetDefaultBatchSampler(BatchSampler, ABC):
    """Mix the batches of several datasets; each batch comes from one of them.

    A pass has one generator, seeded with ``seed + epoch``, that the samplers of this library share: they draw when
    their batches are asked for, so what one draws depends on the others, as in the peer's trainer. The generator lives
    for one pass, which makes passes a function of seed and epoch alone. Samplers of other kinds are iterated as they
    are; for them, the given generator takes its place, because they may hold it too.

    A subclass defines ``__iter__`` and ``__len__``; :meth:`start` gives it the batches of each dataset.

    Args:
        dataset: The datasets one after another.
        batch_samplers: One for each dataset.
        generator: Tells the device to draw on; ``None`` is the CPU.
        seed: Of epoch 0.

    Raises:
        TypeError: If ``seed`` is not an integer, or ``dataset`` has no ``datasets``.
        ValueError: If there are no datasets, or not as many samplers.
    """

    def __init__(
        self,
        dataset: ConcatenatedDatasets,
        batch_samplers: Sequence[BatchSampler],
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        if not hasattr(dataset, "datasets"):
            raise TypeError(f"dataset must have datasets, as a torch ConcatDataset has, got a {type(dataset).__name__}")
        if len(dataset.datasets) != len(batch_samplers):
            raise ValueError(
                f"every dataset needs a batch sampler, got {len(dataset.datasets)} datasets and "
                f"{len(batch_samplers)} batch samplers"
            )
        if not batch_samplers:
            raise ValueError("there must be at least one dataset, got none")
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise TypeError(f"seed must be an integer, got {seed!r}")
        first = batch_samplers[0]
        rows = range(sum(map(len, dataset.datasets)))
        super().__init__(rows, batch_size=first.batch_size or 1, drop_last=first.drop_last)
        self.batch_size = first.batch_size  # None where batches differ in size
        self.dataset = dataset
        self.batch_samplers = list(batch_samplers)
        self.generator = generator
        self.seed = seed
        self.epoch = 0
        self._counted: tuple[tuple[int, ...], int] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass, by an integer, here and in the samplers of the datasets."""
        self.epoch = check_epoch(epoch)
        for sampler in self.batch_samplers:
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)

    @property
    def length_varies(self) -> bool:
        """Whether passes may differ in their number of batches, because those of a dataset do."""
        return any(getattr(sampler, "length_varies", False) for sampler in self.batch_samplers)

    @abstractmethod
    def __iter__(self) -> Iterator[list[int]]:
        """Yield batches of row numbers, counted over all datasets."""

    @abstractmethod
    def __len__(self) -> int:
        """Count the batches of a pass."""

    def start(self) -> Pass:
        """Begin a pass: seed its generator and open the samplers, none of which has drawn anything yet."""
        seed = self.seed + self.epoch
        if self.generator is None or all(map(draws_with_others, self.batch_samplers)):
            generator = new_generator(seed, self.generator)
        else:
            generator = self.generator.manual_seed(seed)
        offsets = accumulate(map(len, self.dataset.datasets), initial=0)
        opened = [
            sampler.draw(generator, sampler.epoch)
            if isinstance(sampler, DefaultBatchSampler) and draws_with_others(sampler)
            else iter(sampler)
            for sampler in self.batch_samplers
        ]
        return Pass(generator, [_shifted(each, offset) for each, offset in zip(opened, offsets, strict=False)])

    def planned_lengths(self) -> list[int]:
        """Return how many batches of each dataset a pass plans for: the peer's ``len`` of its samplers."""
        return [
            sampler.planned_length if isinstance(sampler, DefaultBatchSampler) else len(sampler)
            for sampler in self.batch_samplers
        ]

    def count(self, planned: int) -> int:
        """Return the length of a pass: as planned, or counted where the number of batches is known only by drawing."""
        if not self.length_varies or not all(map(draws_with_others, self.batch_samplers)):
            return planned
        epochs = (self.epoch, *(getattr(sampler, "epoch", 0) for sampler in self.batch_samplers))
        if self._counted is None or self._counted[0] != epochs:
            self._counted = epochs, sum(1 for _ in self)
        return self._counted[1]


class RoundRobinBatchSampler(MultiDatasetDefaultBatchSampler):
    """Take a batch of each dataset in turn, until one has no more; the batches are the peer's.

    Unlike the peer's, the length is exact where the batches of a dataset (no duplicates) are known only by drawing.

    Args:
        dataset: The datasets one after another.
        batch_samplers: One for each dataset.
        generator: Tells the device to draw on; ``None`` is the CPU.
        seed: Of epoch 0.

    Raises:
        TypeError: If ``seed`` is not an integer, or ``dataset`` has no ``datasets``.
        ValueError: If there are no datasets, or not as many samplers.
    """

    def __iter__(self) -> Iterator[list[int]]:
        """Yield batches of row numbers, counted over all datasets."""
        return self._in_turn(self.start().batches)

    def __len__(self) -> int:
        """Count the batches of a pass: as many of each dataset as the shortest has."""
        return self.count(min(map(len, self.batch_samplers)) * len(self.batch_samplers))

    @staticmethod
    def _in_turn(batches: list[Iterator[list[int]]]) -> Iterator[list[int]]:
        for one_of_each in zip(*batches, strict=False):
            yield from one_of_each


class ProportionalBatchSampler(MultiDatasetDefaultBatchSampler):
    """Take every batch of every dataset once, in a random order; the batches are the peer's.

    As in the peer, a dataset has as many turns as its sampler plans batches for, and a turn for which it has no batch
    is passed over. Unlike the peer's, the length is exact then.

    Args:
        dataset: The datasets one after another.
        batch_samplers: One for each dataset.
        generator: Tells the device to draw on; ``None`` is the CPU.
        seed: Of epoch 0.

    Raises:
        TypeError: If ``seed`` is not an integer, or ``dataset`` has no ``datasets``.
        ValueError: If there are no datasets, or not as many samplers.
    """

    def __iter__(self) -> Iterator[list[int]]:
        """Yield batches of row numbers, counted over all datasets."""
        return in_random_turns(self.start(), self.planned_lengths())

    def __len__(self) -> int:
        """Count the batches of a pass over all datasets."""
        return self.count(sum(self.planned_lengths()))


def in_random_turns(begun: Pass, turns: list[int]) -> Iterator[list[int]]:
    """Yield the batches of datasets that have a number of turns each, in a random order."""
    datasets = [number for number, count in enumerate(turns) for _ in range(count)]
    for turn in shuffled(len(datasets), begun.generator):
        batch = next(begun.batches[datasets[turn]], None)
        if batch is not None:
            yield batch


def _shifted(batches: Iterator[list[int]], offset: int) -> Iterator[list[int]]:
    """Add an offset to all row numbers."""
    for batch in batches:
        yield [row + offset for row in batch]
