"""Rows read by number, of one dataset or several; knows nothing of tokens."""

from __future__ import annotations

import copy
import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import datasets
import torch
from torch.utils.data import ConcatDataset, Dataset

from sparse_encoder.training.data.collator import DATASET_NAME, LABEL_COLUMNS
from sparse_encoder.training.data.names import TABLE_FORMATS, check_not_reserved, dataset_of, is_listed, is_named
from sparse_encoder.training.randomness import DATA_STREAM, seed_everything

SUPPORTED = "a datasets.Dataset, a list of dicts, or an object whose rows, dicts, are read by number"
_FINGERPRINT_ROWS = 8

Row = Mapping[str, Any]  # texts, pairs of texts, labels


class Share(NamedTuple):
    """Which batches a process reads: in turn, every process one."""

    num_processes: int
    """How many share."""
    process_index: int
    """Who this is."""


class Rows(Dataset[Row]):
    """Read the rows of a dataset; whatever they draw at random is a function of seed, epoch and rows.

    Args:
        dataset: One of the supported kinds; it is not changed.
        seed: Of the draws of a row's transform.
        name: What errors call it.

    Raises:
        ValueError: If the dataset is of another kind, has no rows, no text column, or a reserved column.
    """

    def __init__(self, dataset: object, *, seed: int, name: str) -> None:
        self.dataset = readable(dataset, name)
        self.name = name
        self.seed = seed
        self._epoch = shared_number()
        self.column_names = row_columns(self.dataset, name)

    @property
    def epoch(self) -> int:
        """Which pass over the data is going on."""
        return int(self._epoch)

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Row:
        """Return one row."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Row]:
        """Return the rows of a batch."""
        seed_everything(self.seed, DATA_STREAM, self.epoch, *indices[:1])
        return self.fetch(indices)

    def fetch(self, indices: list[int]) -> list[Row]:
        """Return some rows, which draw from the generators as they are."""
        fetch = getattr(self.dataset, "__getitems__", None)
        rows: list[Row] = [self.dataset[index] for index in indices] if fetch is None else fetch(indices)
        return rows

    def set_epoch(self, epoch: int) -> None:
        """Tell which pass over the data comes next, also to workers that are running."""
        self._epoch.fill_(epoch)

    def fingerprint(self) -> str:
        """Return a digest of the number of rows, the columns and a few rows: enough to tell other data."""
        digest = hashlib.sha256(repr((len(self), self.column_names)).encode())
        count = min(_FINGERPRINT_ROWS, len(self))
        for index in sorted({position * (len(self) - 1) // max(1, count - 1) for position in range(count)}):
            digest.update(repr(list(self[index].items())).encode())
        return digest.hexdigest()


class ConcatRows(ConcatDataset[Row]):
    """Read the rows of several datasets, numbered one dataset after the other.

    Args:
        parts: The datasets, all with the same seed.
        seed: Of the draws of a row's transform.
    """

    datasets: list[Rows]  # type: ignore[assignment]  # of a narrower kind

    def __init__(self, parts: Sequence[Rows], *, seed: int) -> None:
        super().__init__(parts)
        self.seed = seed

    def __getitem__(self, index: int) -> Row:
        """Return one row."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Row]:
        """Return the rows of a batch."""
        seed_everything(self.seed, DATA_STREAM, self.datasets[0].epoch, *indices[:1])
        numbers = [bisect_right(self.cumulative_sizes, index) for index in indices]
        starts = [0, *self.cumulative_sizes]
        if len(set(numbers)) == 1:
            return self.datasets[numbers[0]].fetch([index - starts[numbers[0]] for index in indices])
        return [
            self.datasets[number].fetch([index - starts[number]])[0]
            for number, index in zip(numbers, indices, strict=True)
        ]

    def set_epoch(self, epoch: int) -> None:
        """Tell which pass over the data comes next, also to workers that are running."""
        for part in self.datasets:
            part.set_epoch(epoch)


def shared_number() -> torch.Tensor:
    """Return a zero that workers see change."""
    number = torch.zeros((), dtype=torch.int64)
    number.share_memory_()  # type: ignore[no-untyped-call]
    return number


def readable(dataset: object, name: str) -> Any:  # noqa: ANN401  (anything with a length and rows by number)
    """Return a dataset of one of the supported kinds as something to read rows from.

    Raises:
        ValueError: If it is of another kind or has no rows.
    """
    if isinstance(dataset, Mapping):
        raise ValueError(f"{name} holds several datasets; give {SUPPORTED}")
    kind = type(dataset).__name__
    if isinstance(dataset, datasets.IterableDataset | str) or not hasattr(dataset, "__getitem__"):
        raise ValueError(f"{name} is of the type {kind}; give {SUPPORTED}")
    if not hasattr(dataset, "__len__"):
        raise ValueError(
            f"{name} is of the type {kind}, which has no length; give {SUPPORTED}; "
            "a stream must be a datasets.IterableDataset, whose from_generator makes one of anything that yields dicts"
        )
    if not len(dataset):
        raise ValueError(f"{name} has no rows")
    if is_listed(dataset):
        return dataset_of(dataset, name)
    if isinstance(dataset, datasets.Dataset) and dataset.format["type"] in TABLE_FORMATS:
        plain = copy.copy(dataset)  # its rows as dicts
        plain.set_format(None, columns=dataset.format["columns"])
        return plain
    return dataset


def row_columns(rows: Any, name: str) -> list[str]:  # noqa: ANN401  (as above)
    """Return the checked names of the columns.

    Raises:
        ValueError: If there is no text column, or one with a reserved name.
    """
    if isinstance(rows, datasets.Dataset) and rows.format["type"] == "custom":
        check_not_reserved(rows.column_names, name)  # its rows have the columns that the transform gives them
        return list(rows.column_names)
    columns = getattr(rows, "column_names", None)
    if columns is None:
        first = rows[0]
        if not isinstance(first, Mapping):
            raise ValueError(f"the rows of {name} must be dicts from column to value, got {type(first).__name__}")
        columns = list(first)
    return checked_columns(columns, name, is_named=is_named(rows))


def checked_columns(columns: Iterable[str], name: str, *, is_named: bool) -> list[str]:
    """Return the names of columns, without that of the dataset's name if the rows were given one.

    Raises:
        ValueError: If there is no text column, or one with a reserved name.
    """
    columns = [column for column in columns if not (is_named and column == DATASET_NAME)]
    check_not_reserved(columns, name)
    if all(column in LABEL_COLUMNS for column in columns):
        raise ValueError(f"{name} has no text column, got {columns}")
    return columns
