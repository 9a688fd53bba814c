"""Mixes of unlike datasets: rare ones oftener than their size says, or large ones up to a cap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from numbers import Real

import torch
from torch.utils.data import BatchSampler

from sparse_encoder.samplers.default import DefaultBatchSampler, draws_with_others
from sparse_encoder.samplers.length_buckets import LengthBucketBatchSampler
from sparse_encoder.samplers.multi_dataset import (
    ConcatenatedDatasets,
    MultiDatasetDefaultBatchSampler,
    in_random_turns,
)
from sparse_encoder.samplers.randomness import new_generator

_EPOCHS_APART = 1_000_003  # between passes over a dataset within one epoch


class TemperatureBatchSampler(MultiDatasetDefaultBatchSampler):
    r"""Draw the dataset of each batch at random, small ones oftener than their size says.

    .. math:: p_i \propto \min(n_i, K)^{1/T}

    for datasets of :math:`n_i` rows. A temperature of 1 draws in proportion to size, a high one evenly. A dataset that
    runs out within an epoch is gone through once more, in another order.

    Give it to the trainer as ``multi_dataset_batch_sampler=functools.partial(TemperatureBatchSampler, temperature=3)``.

    Source: Arivazhagan et al., 2019, https://arxiv.org/abs/1907.05019; the limit K: Raffel et al., 2020,
    https://arxiv.org/abs/1910.10683.

    Args:
        dataset: The datasets one after another.
        batch_samplers: One for each dataset.
        generator: Tells the device to draw on; ``None`` is the CPU.
        seed: Of epoch 0.
        temperature: T; divides the logarithm of the sizes.
        max_rows_per_dataset: K, the size at which larger datasets are counted; ``None`` counts all rows.
        num_batches: Batches of an epoch; ``None`` takes as many as all datasets have together.

    Raises:
        TypeError: If ``seed`` is not an integer, ``temperature`` not a number, or ``dataset`` has no ``datasets``.
        ValueError: If there are no datasets, or not as many samplers; if ``temperature``, ``max_rows_per_dataset`` or
            ``num_batches`` is not positive; or if no dataset has a batch.
    """

    def __init__(  # house: peer signature
        self,
        dataset: ConcatenatedDatasets,
        batch_samplers: Sequence[BatchSampler],
        generator: torch.Generator | None = None,
        seed: int = 0,
        *,
        temperature: float,
        max_rows_per_dataset: int | None = None,
        num_batches: int | None = None,
    ) -> None:
        super().__init__(dataset, batch_samplers, generator, seed)
        _check_number("temperature", temperature)
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be a positive number, got {temperature!r}")
        _check_positive("max_rows_per_dataset", max_rows_per_dataset)
        _check_positive("num_batches", num_batches)
        self.temperature = temperature
        self.max_rows_per_dataset = max_rows_per_dataset
        planned = self.planned_lengths()
        if not any(planned):
            raise ValueError(f"no dataset has a batch; the samplers plan {planned}")
        self.num_batches = sum(planned) if num_batches is None else num_batches
        largest = math.inf if max_rows_per_dataset is None else max_rows_per_dataset
        sizes = [min(len(rows), largest) if count else 0 for rows, count in zip(dataset.datasets, planned, strict=True)]
        weights = torch.tensor(sizes, dtype=torch.float64)
        weights = torch.where(weights > 0, (weights / weights.max()).pow(1 / temperature), 0)
        self.probabilities: list[float] = (weights / weights.sum()).tolist()

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        """Yield batches of row numbers, counted over all datasets."""
        generator = new_generator(self.seed + self.epoch, self.generator)
        weights = torch.tensor(self.probabilities, device=generator.device)
        turns: list[int] = torch.multinomial(weights, self.num_batches, replacement=True, generator=generator).tolist()
        endless = [self._endless(number, self.epoch) for number in range(len(self.batch_samplers))]
        return (next(endless[number]) for number in turns)

    def _endless(self, number: int, epoch: int) -> Iterator[list[int]]:
        """Yield the batches of one dataset, pass after pass."""
        sampler = self.batch_samplers[number]
        offset = sum(map(len, self.dataset.datasets[:number]))
        repeats = 0
        while True:
            nothing = True
            for batch in _pass_of(sampler, epoch + repeats * _EPOCHS_APART, self.seed):
                nothing = False
                yield [row + offset for row in batch]
            if nothing:
                raise ValueError(f"the sampler of dataset {number} planned batches, but gives none")
            repeats += 1


class CappedProportionalBatchSampler(MultiDatasetDefaultBatchSampler):
    """Take the batches of every dataset in a random order, but of none more rows in an epoch than a cap.

    What a large dataset gives is the beginning of its random order, so every epoch has other rows of it.

    Give it to the trainer as
    ``multi_dataset_batch_sampler=functools.partial(CappedProportionalBatchSampler, max_rows_per_dataset=100_000)``.

    Args:
        dataset: The datasets one after another.
        batch_samplers: One for each dataset.
        generator: Tells the device to draw on; ``None`` is the CPU.
        seed: Of epoch 0.
        max_rows_per_dataset: The cap, in rows; at least a batch.

    Raises:
        TypeError: If ``seed`` is not an integer, or ``dataset`` has no ``datasets``.
        ValueError: If there are no datasets, or not as many samplers; or if ``max_rows_per_dataset`` is less than a
            batch.
    """

    def __init__(
        self,
        dataset: ConcatenatedDatasets,
        batch_samplers: Sequence[BatchSampler],
        generator: torch.Generator | None = None,
        seed: int = 0,
        *,
        max_rows_per_dataset: int,
    ) -> None:
        super().__init__(dataset, batch_samplers, generator, seed)
        _check_positive("max_rows_per_dataset", max_rows_per_dataset)
        largest = max(map(_most_rows, batch_samplers))
        if max_rows_per_dataset < largest:
            raise ValueError(f"max_rows_per_dataset must be at least a batch, {largest}, got {max_rows_per_dataset}")
        self.max_rows_per_dataset = max_rows_per_dataset

    def __iter__(self) -> Iterator[list[int]]:
        """Yield batches of row numbers, counted over all datasets."""
        return in_random_turns(self.start(), self._turns())

    def __len__(self) -> int:
        """Count the batches of a pass."""
        return self.count(sum(self._turns()))

    def _turns(self) -> list[int]:
        """Return how many batches of each dataset a pass has."""
        return [
            min(planned, self.max_rows_per_dataset // _most_rows(sampler))
            for planned, sampler in zip(self.planned_lengths(), self.batch_samplers, strict=True)
        ]


def _pass_of(sampler: BatchSampler, epoch: int, seed: int) -> Iterator[list[int]]:
    """Return a pass of one sampler, the one of an epoch where it is a function of that."""
    if isinstance(sampler, DefaultBatchSampler) and draws_with_others(sampler):
        return sampler.draw(new_generator(seed + epoch, sampler.generator), epoch)
    return iter(sampler)


def _most_rows(sampler: BatchSampler) -> int:
    """Return the size of the largest batch that a sampler can give."""
    return sampler.max_rows if isinstance(sampler, LengthBucketBatchSampler) else sampler.batch_size


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")


def _check_positive(name: str, value: int | None) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
