"""What both trainers do alike to read data: which they evaluate on, and how a loader is set up."""

from __future__ import annotations

from collections.abc import Callable

from accelerate import Accelerator

from sparse_encoder.samplers import MultiDatasetBatchSamplers
from sparse_encoder.training.arguments import TrainingArguments
from sparse_encoder.training.data.datasets import TrainingData, as_training_data
from sparse_encoder.training.data.loaders import LoaderSettings

_NAME = "eval_dataset"


def data_to_evaluate(
    own: object, asked: object, prepare: Callable[[object, str], object] | None = None
) -> TrainingData | None:
    """Return the data to evaluate on: those asked for, those of a name, or the trainer's own; None if it has none.

    Args:
        own: The trainer's; None if it has none.
        asked: A dataset, several by name, or a name of the own; None for all of the own.
        prepare: Adds to a dataset what its rows need; the trainer's own have it.

    Raises:
        ValueError: If there is no dataset of this name.
    """
    if isinstance(asked, TrainingData):
        return asked
    if asked is not None and not isinstance(asked, str):
        return as_training_data(asked if prepare is None else prepare(asked, _NAME), _NAME)
    if own is None:
        if asked is not None:
            raise ValueError(f"there is no eval_dataset {asked!r}: the trainer was given none")
        return None
    data = as_training_data(own, _NAME)
    return data if asked is None else data.select(asked)


def sets_by_name(data: TrainingData, asked: object) -> dict[str | None, object]:
    """Return what ``get_eval_dataloader`` is called with for each dataset, by its name; a single one has None.

    The trainer's own, if there are several, are called for by their names, as in the peer; others as they are.

    Args:
        data: As :func:`data_to_evaluate` returned them.
        asked: What it was asked for.
    """
    if isinstance(asked, str):
        return {asked: asked}
    if not data.is_mapping:
        return {None: data.parts[""]}
    return {name: name if asked is None else part for name, part in data.parts.items()}


def loader_settings(
    args: TrainingArguments,
    accelerator: Accelerator,
    *,
    batch_size: int,
    drop_last: bool,
    even_batches: bool,
    stream_order: MultiDatasetBatchSamplers = MultiDatasetBatchSamplers.PROPORTIONAL,
) -> LoaderSettings:
    """Return the settings of a loader, those of the arguments among them.

    Args:
        args: Have the seed and all that begins with ``dataloader_``.
        accelerator: Memory is pinned for a GPU only.
        batch_size: Rows of a batch of one process.
        drop_last: Leave out an incomplete last batch.
        even_batches: Give all processes as many batches.
        stream_order: From which of several streams the next batch comes.
    """
    return LoaderSettings(
        batch_size=batch_size,
        drop_last=drop_last,
        even_batches=even_batches,
        seed=args.seed if args.data_seed is None else args.data_seed,
        stream_order=stream_order,
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory and accelerator.device.type == "cuda",
        prefetch_factor=args.dataloader_prefetch_factor,
        persistent_workers=args.dataloader_persistent_workers,
        in_order=args.dataloader_in_order,
        multiprocessing_context=args.dataloader_multiprocessing_context,
    )
