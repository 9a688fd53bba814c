"""Which columns of a dataset reach a model, and how long its rows are; knows nothing of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import datasets
from torch import nn

from sparse_encoder.training.data.datasets import TrainingData

_INPUTS = "input_ids"


class SelectedColumns:
    """A view of rows, dicts, that has some of their columns.

    Args:
        rows: Anything with a length and rows by number.
        names: Columns that are kept.
    """

    def __init__(self, rows: Any, names: set[str]) -> None:  # noqa: ANN401  (as above)
        self.rows, self.names = rows, names

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one row."""
        return {name: value for name, value in self.rows[index].items() if name in self.names}


def keep_columns(data: TrainingData, names: set[str], model: nn.Module) -> TrainingData:
    """Return data with no other columns than those of these names.

    Raises:
        ValueError: If nothing would be left.
    """
    parts = {}
    for key, part in data.parts.items():
        columns = list(_columns(part))
        kept = [name for name in columns if name in names]
        if not kept:
            raise ValueError(
                f"no column of {data.name_of(key)}, {columns}, is one that the forward of {type(model).__name__} "
                f"takes, {sorted(names)}; rename them, or set remove_unused_columns=False if the collator uses them"
            )
        if len(kept) == len(columns):
            parts[key] = part
        elif isinstance(part, datasets.Dataset | datasets.IterableDataset) and not _has_transform(part):
            parts[key] = part.select_columns(kept)
        else:
            parts[key] = SelectedColumns(part, names)
    return replace(data, parts=parts)


def lengths_of(rows: Any, column: str) -> Sequence[int]:  # noqa: ANN401  (anything with rows by number)
    """Return the length of each row: what a column says, or the number of its input ids.

    Raises:
        ValueError: If there is neither.
    """
    columns = list(_columns(rows))
    source = column if column in columns else _INPUTS
    if source not in columns:
        raise ValueError(f"group_by_length needs a column {column!r} or {_INPUTS!r}, got {columns}")
    values = rows[source] if hasattr(rows, "column_names") else [rows[index][source] for index in range(len(rows))]
    return [int(value) if source == column else len(value) for value in values]


def _columns(rows: Any) -> Sequence[str]:  # noqa: ANN401  (as above)
    names = getattr(rows, "column_names", None)
    return list(rows[0]) if names is None else names


def _has_transform(rows: Any) -> bool:  # noqa: ANN401  (as above)
    """Return whether rows come out of a transform, so that their columns are only known when they are read."""
    return isinstance(rows, datasets.Dataset) and rows.format["type"] == "custom"
