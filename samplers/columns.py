"""How samplers read a dataset: a ``datasets.Dataset``, or anything with a length and rows, dicts, by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class RowsByNumber(Protocol):
    """What a dataset must have to be read."""

    def __len__(self) -> int:
        """Count the rows."""

    def __getitem__(self, index: int, /) -> Any:  # noqa: ANN401  (a row: a dict from column to anything)
        """Return a row."""


def is_table(dataset: object) -> bool:
    """Return whether slices of a dataset are dicts of columns, as those of a ``datasets.Dataset``."""
    return hasattr(dataset, "select_columns") and hasattr(dataset, "column_names")


def column_names(dataset: RowsByNumber) -> list[str]:
    """Return the names of the columns; those of the first row where the dataset does not tell."""
    names = getattr(dataset, "column_names", None)
    if names is None:
        names = list(dataset[0]) if len(dataset) else []
    return list(names)


def read_columns(dataset: Any, start: int, stop: int) -> Mapping[str, Sequence[Any]]:  # noqa: ANN401  (see is_table)
    """Return the values of some consecutive rows by column.

    Raises:
        TypeError: If a row is not a dict.
        ValueError: If a row lacks a column that the first of them has, or has another one.
    """
    if is_table(dataset):
        columns: Mapping[str, Sequence[Any]] = dataset[start:stop]
        return columns
    numbers = list(range(start, stop))
    rows = dataset.__getitems__(numbers) if hasattr(dataset, "__getitems__") else [dataset[row] for row in numbers]
    for number, row in zip(numbers, rows, strict=True):
        if not isinstance(row, Mapping):
            raise TypeError(f"rows must be dicts from column to value, row {number} is {row!r}")
    names = list(rows[0]) if rows else []
    for number, row in zip(numbers, rows, strict=True):
        if row.keys() != rows[0].keys():
            raise ValueError(f"row {number} has the columns {sorted(row)}, row {start} has {sorted(names)}")
    return {name: [row[name] for row in rows] for name in names}


def read_column(dataset: Any, name: str, chunk: int = 10_000) -> list[Any]:  # noqa: ANN401  (see is_table)
    """Return all values of one column, tensors and arrays as plain numbers."""
    if is_table(dataset):
        dataset = dataset.select_columns([name])
    values: list[Any] = []
    for start in range(0, len(dataset), chunk):
        part = read_columns(dataset, start, min(start + chunk, len(dataset)))[name]
        values.extend(part.tolist() if hasattr(part, "tolist") else part)
    return [value.tolist() if hasattr(value, "tolist") else value for value in values]
