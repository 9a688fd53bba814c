"""From rows that are tokens already to batches of what a model takes, without a trainer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from datasets import Dataset
from torch import Generator, nn
from torch.utils.data import DataLoader

from sparse_encoder.training.data.padding import LABELS, SINGLE_LABELS, DataCollatorWithPadding, default_data_collator

_PREFETCHING_WORKERS = 1


def prepare_dataset(  # house: peer signature
    model: nn.Module,
    dataset: Dataset,
    batch_size: int = 8,
    shuffle: bool = True,
    tokenizer: Any = None,  # noqa: ANN401 - any library's
    collate_fn: Callable[..., Any] | None = None,
    collate_fn_args: Mapping[str, Any] | None = None,
    drop_remainder: bool | None = None,
    prefetch: bool = True,
    generator: Generator | None = None,
) -> DataLoader[Any]:
    """Make a loader of batches that a model takes by name: ``model(**batch)``.

    Args:
        model: Columns that its forward does not name are left out; those with labels stay.
        dataset: Rows with lists of tokens or other numbers.
        batch_size: Rows of a batch.
        shuffle: Draw the order of rows anew in each pass.
        tokenizer: Pads rows to the longest of their batch; without one, rows must be of one length.
        collate_fn: Makes a batch out of rows in its own way.
        collate_fn_args: Further arguments for it, by name.
        drop_remainder: Leave a last batch out that is too small; by default when shuffling.
        prefetch: Let a process read ahead.
        generator: Draws the order; by default torch's own generator.

    Raises:
        ValueError: If no column would be left, or ``collate_fn_args`` are given without ``collate_fn``.
    """
    if collate_fn_args and collate_fn is None:
        raise ValueError("collate_fn_args are for a collate_fn, and there is none; give both")
    wanted = {*inspect.signature(type(model).forward).parameters, *SINGLE_LABELS, LABELS} - {"self"}
    kept = [name for name in dataset.column_names if name in wanted]
    if not kept:
        raise ValueError(
            f"no column of {dataset.column_names} is one that the forward of {type(model).__name__} takes: "
            f"{sorted(wanted)}; rename them"
        )
    collator: Callable[..., Any] = default_data_collator if tokenizer is None else DataCollatorWithPadding(tokenizer)
    if collate_fn is not None:
        collator = partial(collate_fn, **(collate_fn_args or {}))
    return DataLoader(
        dataset.select_columns(kept),
        batch_size=batch_size,
        shuffle=shuffle,
        collate_fn=collator,
        drop_last=shuffle if drop_remainder is None else drop_remainder,
        num_workers=_PREFETCHING_WORKERS if prefetch else 0,
        generator=generator,
    )
