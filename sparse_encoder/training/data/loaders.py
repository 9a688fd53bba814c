"""From data to batches on the device, shared out among processes; knows neither tokens nor losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import BatchSampler, DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from sparse_encoder.samplers import MultiDatasetBatchSamplers, epoch_lengths
from sparse_encoder.training.data.collator import LABEL_COLUMNS, Batch
from sparse_encoder.training.data.datasets import TrainingData, num_rows
from sparse_encoder.training.data.rows import ConcatRows, Row, Rows, Share
from sparse_encoder.training.data.streams import BatchStream
from sparse_encoder.training.randomness import ORDER_STREAM, seed_everything

Collate = Callable[[list[Row]], Batch]


class MakeBatchSampler(Protocol):
    """Make what decides which rows of a dataset go into which batch."""

    def __call__(  # house: peer signature
        self,
        dataset: Any,  # noqa: ANN401  (anything with a length)
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> BatchSampler:
        """Return the sampler."""


class MakeMultiDatasetBatchSampler(Protocol):
    """Make what decides from which dataset the next batch comes."""

    def __call__(
        self,
        dataset: ConcatRows,
        batch_samplers: list[BatchSampler],
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> BatchSampler:
        """Return the sampler."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderSettings:
    """How batches are made and read.

    Raises:
        ValueError: If the batch size is not positive.
    """

    batch_size: int
    """Rows of a batch, of one process."""
    drop_last: bool
    """Leave out a last batch that is not full."""
    even_batches: bool
    """Let processes that would have one batch fewer repeat one from the start."""
    seed: int
    """Of the order of rows, and of what they draw at random."""
    stream_order: MultiDatasetBatchSamplers = MultiDatasetBatchSamplers.PROPORTIONAL
    """From which of several streams the next batch comes."""
    num_workers: int = 0
    """Processes that read ahead; 0 reads in this one. It does not change the batches."""
    pin_memory: bool = False
    """Copy batches to the GPU while it computes."""
    prefetch_factor: int | None = None
    """Batches that a worker reads ahead."""
    persistent_workers: bool = False
    """Keep the workers for the next pass."""
    in_order: bool = True
    """Take batches in their order, not as workers finish them; False gives up a reproducible order."""
    multiprocessing_context: str | None = None
    """How workers are started, such as ``spawn``; ``None`` is the platform's own."""

    def __post_init__(self) -> None:
        """Check the batch size."""
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")


def build_loader(
    data: TrainingData,
    settings: LoaderSettings,
    *,
    collate: Collate,
    accelerator: Accelerator,
    make_batch_sampler: MakeBatchSampler,
    make_multi_dataset_batch_sampler: MakeMultiDatasetBatchSampler,
) -> DataLoader[Batch]:
    """Return the batches of this process, on its device.

    The batches of epoch e are those after ``loader.set_epoch(e)``, whatever was read before and by how many workers;
    ``accelerate.skip_first_batches`` leaves out the first ones and changes none. The loader of streams has no length.

    Args:
        data: One dataset or several.
        settings: Of this loader.
        collate: Makes a batch of rows.
        accelerator: Knows the device and the processes.
        make_batch_sampler: Called for each dataset, with one generator for all.
        make_multi_dataset_batch_sampler: Called for several datasets, with the same generator.

    Raises:
        ValueError: If a dataset is too small for a batch.
    """
    pin_memory = settings.pin_memory and accelerator.device.type == "cuda"
    rows: BatchStream | ConcatRows | Rows
    batches: BatchSampler | None = None
    if data.is_stream:
        rows = _stream(data, settings, accelerator)
    else:
        parts = [Rows(part, seed=settings.seed, name=data.name_of(key)) for key, part in data.parts.items()]
        columns = list(getattr(collate, "valid_label_columns", LABEL_COLUMNS))
        generator = torch.Generator().manual_seed(settings.seed)
        samplers = [_sampler(part, settings, make_batch_sampler, columns, generator) for part in parts]
        rows, sampler = parts[0], samplers[0]
        if data.is_mapping:
            rows = ConcatRows(parts, seed=settings.seed)
            sampler = make_multi_dataset_batch_sampler(
                rows, batch_samplers=samplers, generator=generator, seed=settings.seed
            )
        batches = _shared_out(sampler, data, settings, accelerator)
    loader: DataLoader[Any] = DataLoader(
        rows,
        batch_size=1 if batches is not None else None,  # a stream yields whole batches
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=settings.num_workers,
        pin_memory=pin_memory,
        prefetch_factor=settings.prefetch_factor,
        persistent_workers=settings.persistent_workers,
        in_order=settings.in_order,
        multiprocessing_context=settings.multiprocessing_context,
    )
    return _on_device(loader, accelerator.device)


def length_of(loader: DataLoader[Batch]) -> int | None:
    """Count the batches of a loader; ``None`` if it reads streams."""
    try:
        return len(loader)
    except TypeError:  # of a stream, which has no length
        return None


def skip_batches(loader: DataLoader[Batch], count: int) -> DataLoader[Batch]:
    """Return a loader of one pass without its first batches, as :func:`accelerate.skip_first_batches` does.

    The rows that are left out of a stream are read, but not tokenized. Of a loader of another kind than torch's, which
    a trainer may have of its own, the first batches are read too.
    """
    if not isinstance(loader, DataLoader):
        return islice(loader, count, None)
    stream = loader.dataset
    if not isinstance(stream, BatchStream):
        return skip_first_batches(loader, count)  # type: ignore[no-any-return]
    rest: DataLoader[Any] = DataLoader(
        stream.without_first(count),
        batch_size=None,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        prefetch_factor=loader.prefetch_factor,
        in_order=loader.in_order,
        multiprocessing_context=loader.multiprocessing_context,
    )
    prepared = _on_device(rest, loader.device)
    prepared.set_epoch(stream.epoch)
    return prepared


def end_workers(loader: Any) -> None:  # noqa: ANN401  (a trainer's own kind of loader)
    """End the processes that a loader keeps from pass to pass; another pass starts new ones.

    Left to the garbage collector, which closes their queues before it tells them to end, each holds it up for the five
    seconds that torch waits for a process.
    """
    kept = getattr(loader, "base_dataloader", loader)  # what accelerate has wrapped
    if not isinstance(kept, DataLoader):
        return
    iterator, kept._iterator = kept._iterator, None
    if isinstance(iterator, _MultiProcessingDataLoaderIter):
        iterator._shutdown_workers()  # the traceback of an error may still hold it


def seed_order(loader: Any, seed: int, epoch: int) -> None:  # noqa: ANN401  (a trainer's own kind of loader)
    """Let torch's own samplers, which have no epochs, draw an order that depends on seed and epoch alone."""
    seed_everything(seed, ORDER_STREAM, epoch)  # a sampler without a generator draws its seed here
    batches = getattr(loader, "batch_sampler", None)
    for part in (batches, getattr(batches, "sampler", None)):
        generator = getattr(part, "generator", None)
        if isinstance(generator, torch.Generator) and not hasattr(part, "set_epoch"):
            generator.manual_seed(seed + epoch)


def epoch_lengths_of(loader: DataLoader[Batch], num_epochs: int) -> list[int] | None:
    """Count the batches of this process in each epoch from 0 on, which samplers may make differ; None for streams."""
    length = length_of(loader)
    if length is None:
        return None
    batches = getattr(loader, "batch_sampler", None)  # which a trainer's own kind of loader need not have
    if isinstance(batches, SharedBatches):
        return [batches.share_of(each) for each in epoch_lengths(batches.batches_of_all, num_epochs)]
    return epoch_lengths(batches, num_epochs) if isinstance(batches, BatchSampler) else [length] * num_epochs


class SharedBatches(BatchSampler):
    """Share out the batches of a sampler among processes, in turn; all get as many, unless they need not.

    Args:
        batch_sampler: The batches of all processes.
        drop_last: Leave out the last batches if there is not one for every process.
        even_batches: Else give processes that would have one fewer one from the start.
        share: Which of the batches are read here.
    """

    def __init__(self, batch_sampler: BatchSampler, *, drop_last: bool, even_batches: bool, share: Share) -> None:
        self.batches_of_all = batch_sampler
        self.batch_size = batch_sampler.batch_size
        self.drop_last = drop_last
        self.even_batches = even_batches
        self.num_processes, self.process_index = share

    def __len__(self) -> int:
        """Count the batches of this process."""
        return self.share_of(len(self.batches_of_all))

    def share_of(self, batches_of_all: int) -> int:
        """Return how many of so many batches are for this process."""
        whole, rest = divmod(batches_of_all, self.num_processes)
        if self.drop_last:
            return whole
        return whole + bool(rest if self.even_batches else rest > self.process_index)

    def set_epoch(self, epoch: int) -> None:
        """Tell the sampler which pass comes next, and the sampler of rows that it may have."""
        for part in (self.batches_of_all, getattr(self.batches_of_all, "sampler", None)):
            set_epoch = getattr(part, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the row numbers of each batch of this process."""
        first: list[list[int]] = []
        turn: list[list[int]] = []
        for batch in self.batches_of_all:
            turn.append(batch)
            if len(first) < self.num_processes:
                first.append(batch)
            if len(turn) == self.num_processes:
                yield turn[self.process_index]
                turn = []
        if self.drop_last or not turn:
            return
        if self.even_batches:
            turn += first * self.num_processes
        if self.process_index < len(turn):
            yield turn[self.process_index]


def _on_device(loader: DataLoader[Any], device: torch.device) -> DataLoader[Batch]:
    """Return a loader that puts its batches on a device."""
    prepared: DataLoader[Batch] = prepare_data_loader(
        loader,
        device=device,
        num_processes=1,  # the batches are shared out already
        process_index=0,
        put_on_device=True,
        dispatch_batches=False,
        non_blocking=loader.pin_memory,
    )
    return prepared


def _stream(data: TrainingData, settings: LoaderSettings, accelerator: Accelerator) -> BatchStream:
    for key, stream in data.parts.items():
        if accelerator.num_processes > 1 and getattr(stream, "_distributed", None) is not None:
            raise ValueError(
                f"{data.name_of(key)} was split by node, but processes share out whole streams themselves; "
                "give the stream as it was before split_dataset_by_node"
            )
    return BatchStream(
        data.parts,
        name=data.name,
        batch_size=settings.batch_size,
        drop_last=settings.drop_last,
        even_batches=settings.even_batches,
        order=settings.stream_order,
        seed=settings.seed,
        share=Share(accelerator.num_processes, accelerator.process_index),
    )


def _sampler(
    rows: Rows, settings: LoaderSettings, make: MakeBatchSampler, columns: list[str], generator: torch.Generator
) -> BatchSampler:
    """Return the batch sampler of one dataset, which is large enough for a batch."""
    sampler = make(
        rows.dataset,
        batch_size=settings.batch_size,
        drop_last=settings.drop_last,
        valid_label_columns=columns,
        generator=generator,
        seed=settings.seed,
    )
    if settings.drop_last and len(rows) < settings.batch_size and not len(sampler):
        raise ValueError(_no_batch(rows.name, len(rows), sampler, settings))
    return sampler


def _shared_out(
    sampler: BatchSampler, data: TrainingData, settings: LoaderSettings, accelerator: Accelerator
) -> BatchSampler:
    """Return this process's share of the batches, at least one; of a single process the sampler itself."""
    shared = sampler
    if accelerator.num_processes > 1:
        shared = SharedBatches(
            sampler,
            drop_last=settings.drop_last,
            even_batches=settings.even_batches,
            share=Share(accelerator.num_processes, accelerator.process_index),
        )
    if not len(shared):
        raise ValueError(_no_batch(data.name, num_rows(data), sampler, settings))
    return shared


def _no_batch(name: str, count: int | None, sampler: BatchSampler, settings: LoaderSettings) -> str:
    if settings.drop_last:
        return (
            f"{name} has {count} rows, not enough for one batch of {settings.batch_size} per process when incomplete "
            "batches are dropped (dataloader_drop_last, several processes)"
        )
    return f"the {type(sampler).__name__} makes no batch of {settings.batch_size} of the {count} rows of {name}"
