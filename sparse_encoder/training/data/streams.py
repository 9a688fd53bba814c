"""Batches of rows that can only be read one after the other, of one stream or several; knows nothing of tokens."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import datasets
import torch
from torch.utils.data import IterableDataset, get_worker_info

from sparse_encoder.samplers import BatchSamplers, MultiDatasetBatchSamplers
from sparse_encoder.training.data.names import TABLE_FORMATS
from sparse_encoder.training.data.rows import Row, Share, shared_number
from sparse_encoder.training.randomness import DATA_STREAM, seed_everything

logger = logging.getLogger(__name__)

_FINGERPRINT_ROWS = 8


class BatchStream(IterableDataset[list[Row]]):
    """Yield the rows of each batch of this process, every batch from one stream.

    Every process and every worker reads the streams in full and takes its share of the batches, so that neither the
    number of workers nor of processes changes what is in a batch. What rows draw at random, and which stream comes
    next, is a function of the seed, the epoch and the number of the batch.

    Args:
        streams: By name; they are not changed.
        name: What errors call them.
        batch_size: Rows of a batch.
        drop_last: Leave out a last batch of a stream that is not full.
        even_batches: Complete the last round of the processes with batches from the start, instead of leaving it out.
        order: From which of several streams the next batch comes: in turn, until one is used up, or at random from
            those that are not, until all are.
        seed: Of epoch 0.
        share: Which of the batches are read here.
    """

    def __init__(
        self,
        streams: Mapping[str, datasets.IterableDataset],
        *,
        name: str,
        batch_size: int,
        drop_last: bool,
        even_batches: bool,
        order: MultiDatasetBatchSamplers,
        seed: int,
        share: Share,
    ) -> None:
        self.streams = {key: detached(stream) for key, stream in streams.items()}
        self.name = name
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.even_batches = even_batches
        self.order = order
        self.seed = seed
        self.share = share
        self.first_batch = 0
        self._epoch = shared_number()

    @property
    def epoch(self) -> int:
        """Which pass over the data is going on."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Tell which pass over the data comes next, also to workers that are running; shuffled streams reshuffle."""
        self._epoch.fill_(epoch)

    def without_first(self, count: int) -> BatchStream:
        """Return the same stream without the first batches of every pass; both are at the same epoch."""
        rest = copy.copy(self)
        rest.first_batch = self.first_batch + count
        return rest

    def __iter__(self) -> Iterator[list[Row]]:
        """Yield the batches of this process; in a worker, those of the worker.

        Raises:
            ValueError: If there is no whole batch for every process.
        """
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return islice(self._of_process(), self.first_batch + first, None, step)

    def _of_process(self) -> Iterator[list[Row]]:
        """Yield every ``num_processes``-th batch, as many for each process."""
        count, rows = 0, 0
        kept: list[list[Row]] = []
        turn: list[list[Row]] = []
        for batch in self._batches():
            rows += len(batch)
            turn.append(batch)
            if self.even_batches and len(kept) < self.share.num_processes:
                kept.append(batch)
            if len(turn) == self.share.num_processes:
                yield turn[self.share.process_index]
                count, turn = count + 1, []
        if turn and self.even_batches:
            yield (turn + kept * self.share.num_processes)[self.share.process_index]
        elif not count:
            raise ValueError(
                f"a pass over {self.name} gave {rows} rows in whole batches, not enough for one batch of "
                f"{self.batch_size} per process ({self.share.num_processes})"
                + (", as incomplete batches are dropped" if self.drop_last else "")
            )

    def _batches(self) -> Iterator[list[Row]]:
        """Yield the batches for all processes."""
        epoch = self.epoch
        readers = []
        for shared in self.streams.values():
            stream = detached(shared)  # workers share the epoch of a stream, and would set it at the same time
            stream.set_epoch(epoch)
            readers.append(rows_of(stream.iter(self.batch_size, drop_last_batch=self.drop_last)))
        if len(readers) > 1 and self.order is MultiDatasetBatchSamplers.PROPORTIONAL:
            return self._at_random(readers, epoch)
        return self._in_turn(readers, epoch)

    def _in_turn(self, readers: list[Iterator[list[Row]]], epoch: int) -> Iterator[list[Row]]:
        """Yield a batch of each stream, again and again, until one has none."""
        number = 0
        while True:
            turn = []
            for reader in readers:
                seed_everything(self.seed, DATA_STREAM, epoch, number)
                batch = next(reader, None)
                if batch is None:
                    return
                turn.append(batch)
                number += 1
            yield from turn

    def _at_random(self, readers: list[Iterator[list[Row]]], epoch: int) -> Iterator[list[Row]]:
        """Yield a batch of any stream that has one left, until none has."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        left, number = list(readers), 0
        while left:
            chosen = left[int(torch.randint(len(left), (), generator=generator))]
            seed_everything(self.seed, DATA_STREAM, epoch, number)
            batch = next(chosen, None)
            number += 1
            if batch is None:
                left.remove(chosen)
            else:
                yield batch


def detached(stream: datasets.IterableDataset) -> datasets.IterableDataset:
    """Return a stream of the same rows, as dicts, whose epoch is its own."""
    formatting = getattr(stream, "_formatting", None)
    kind = None if formatting is None or formatting.format_type in TABLE_FORMATS else formatting.format_type
    return stream.with_format(kind)


def rows_of(batches: Iterator[Mapping[str, Any]]) -> Iterator[list[Row]]:
    """Yield the rows of each batch of values by column."""
    for batch in batches:
        yield [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def stream_fingerprint(stream: datasets.IterableDataset) -> str:
    """Return a digest of the features and the first rows: enough to tell most other data."""
    digest = hashlib.sha256(repr(stream.features).encode())
    for row in islice(iter(detached(stream)), _FINGERPRINT_ROWS):
        digest.update(repr(list(row.items())).encode())
    return digest.hexdigest()


def stream_order(batch_sampler: object, multi_dataset_batch_sampler: object) -> MultiDatasetBatchSamplers:
    """Return the order of several streams that the training arguments ask for.

    A batch sampler has no say over a stream, whose rows have no numbers; one that is asked for is told in a warning.

    Args:
        batch_sampler: The argument of this name.
        multi_dataset_batch_sampler: The argument of this name.

    Raises:
        ValueError: If the order is a class or a function: these make batches of row numbers.
    """
    if batch_sampler != BatchSamplers.BATCH_SAMPLER:
        logger.warning("batch_sampler=%r has no effect: rows of a stream are taken as they come", batch_sampler)
    if not isinstance(multi_dataset_batch_sampler, str):
        raise ValueError(
            f"multi_dataset_batch_sampler must be one of {[each.value for each in MultiDatasetBatchSamplers]} for "
            f"streams, whose rows have no numbers; got {multi_dataset_batch_sampler!r}"
        )
    return MultiDatasetBatchSamplers(multi_dataset_batch_sampler)
