"""Names of labels and their numbers, out of datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from sparse_encoder.token_classification.tags import OUTSIDE

if TYPE_CHECKING:
    from datasets import Dataset


def sorted_names(names: Iterable[str]) -> list[str]:
    """Return label names in the order of numbers that nothing else gives: ``O`` first, then by the alphabet."""
    return sorted(set(names), key=lambda name: (name != OUTSIDE, name))


def get_label_names(dataset: Dataset, column: str = "ner_tags") -> list[str]:
    """Return the names of the labels of a column, in the order of their numbers.

    Args:
        dataset: Its column holds a list of labels for each row: class labels, or names.
        column: The column.

    Raises:
        TypeError: If it is several datasets.
        ValueError: If there is no such column, or its labels are numbers without names.
    """
    if isinstance(dataset, Mapping):
        raise TypeError(f"there must be one dataset, got {sorted(dataset)}; choose a split, as dataset['train']")
    if column not in dataset.column_names:
        raise ValueError(f"there is no column {column!r}; choose from {sorted(dataset.column_names)}")
    inner = getattr(dataset.features[column], "feature", None)
    names = getattr(inner, "names", None)
    if names:
        return list(names)
    if getattr(inner, "dtype", None) in ("string", "large_string"):
        return sorted_names(name for row in dataset[column] for name in row)
    raise ValueError(
        f"the labels of column {column!r} have no names ({dataset.features[column]}); "
        "cast it to List(ClassLabel(names=[...])), or pass the names"
    )
