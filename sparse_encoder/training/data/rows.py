"""What can be trained on, and how its rows are read; knows nothing of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import datasets
from torch.utils.data import Dataset

from sparse_encoder.training.data.collator import LABEL_COLUMNS
from sparse_encoder.training.randomness import DATA_STREAM, seed_everything

RESERVED_COLUMNS = ("dataset_name", "return_loss")
_SUPPORTED = "a datasets.Dataset, a list of dicts, or an object whose rows, dicts, are read by number"
_FINGERPRINT_ROWS = 8

Row = Mapping[str, Any]  # texts, pairs of texts, labels


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
        self.dataset = _readable(dataset, name)
        self.seed = seed
        self.epoch = 0
        self.column_names = _column_names(self.dataset, name)

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Row:
        """Return one row."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Row]:
        """Return the rows of a batch."""
        seed_everything(self.seed, DATA_STREAM, self.epoch, *indices[:1])
        fetch = getattr(self.dataset, "__getitems__", None)
        rows: list[Row] = [self.dataset[index] for index in indices] if fetch is None else fetch(indices)
        return rows

    def set_epoch(self, epoch: int) -> None:
        """Tell which pass over the data comes next."""
        self.epoch = epoch

    def fingerprint(self) -> str:
        """Return a digest of the number of rows, the columns and a few rows: enough to tell other data."""
        digest = hashlib.sha256(repr((len(self), self.column_names)).encode())
        count = min(_FINGERPRINT_ROWS, len(self))
        for index in sorted({position * (len(self) - 1) // max(1, count - 1) for position in range(count)}):
            digest.update(repr(list(self[index].items())).encode())
        return digest.hexdigest()


def _readable(dataset: object, name: str) -> Any:  # noqa: ANN401  (anything with a length and rows by number)
    """Return a dataset of one of the supported kinds as something to read rows from."""
    many = isinstance(dataset, datasets.DatasetDict | datasets.IterableDatasetDict | Mapping)
    if many:
        raise ValueError(f"{name} holds several datasets, which are not supported yet; give {_SUPPORTED}")
    if isinstance(dataset, datasets.IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise ValueError(f"{name} is a {type(dataset).__name__}, which is not supported yet; give {_SUPPORTED}")
    if not hasattr(dataset, "__len__") or isinstance(dataset, str):
        raise ValueError(f"{name} is a {type(dataset).__name__}; give {_SUPPORTED}")
    if not len(dataset):
        raise ValueError(f"{name} has no rows")
    if isinstance(dataset, Sequence) and isinstance(dataset[0], Mapping):
        return datasets.Dataset.from_list([dict(row) for row in dataset])
    return dataset


def _column_names(rows: Any, name: str) -> list[str]:  # noqa: ANN401  (as above)
    """Return the checked names of the columns."""
    columns = getattr(rows, "column_names", None)
    if columns is None:
        first = rows[0]
        if not isinstance(first, Mapping):
            raise ValueError(f"the rows of {name} must be dicts from column to value, got {type(first).__name__}")
        columns = list(first)
    if reserved := sorted(set(columns) & set(RESERVED_COLUMNS)):
        raise ValueError(f"{name} has columns with reserved names, {reserved}; rename them")
    if not _without_labels(columns):
        raise ValueError(f"{name} has no text column, got {list(columns)}")
    return list(columns)


def _without_labels(columns: Iterable[str]) -> list[str]:
    return [column for column in columns if column not in LABEL_COLUMNS]
