"""Checks of what evaluators are given: texts, labels, scores, names of similarities; each error names its row."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from sparse_encoder.similarity import SimilarityFunction


def check_texts(name: str, texts: Iterable[str]) -> list[str]:
    """Return a column of texts as a list.

    Raises:
        TypeError: If it is no list of texts.
        ValueError: If it is empty.
    """
    if isinstance(texts, (str, Mapping)) or not isinstance(texts, Iterable):
        raise TypeError(f"{name} must be a list of texts, got {type(texts).__name__}")
    rows = list(texts)
    for row, text in enumerate(rows):
        if not isinstance(text, str):
            raise TypeError(f"{name} must hold texts, row {row} is {text!r} ({type(text).__name__})")
    if not rows:
        raise ValueError(f"{name} must not be empty")
    return rows


def check_dict(name: str, texts: object) -> None:
    """Refuse what does not hold texts by id.

    Raises:
        TypeError: If it is no dict.
    """
    if not isinstance(texts, Mapping):
        raise TypeError(f"{name} must be a dict of texts by id, got {type(texts).__name__}")


def check_ids_and_texts(name: str, ids: Sequence[object], texts: Sequence[object]) -> None:
    """Refuse texts by id that are no texts.

    Raises:
        TypeError: Naming the id.
    """
    for key, text in zip(ids, texts, strict=True):
        if not isinstance(text, str):
            raise TypeError(f"{name} must hold texts, {key!r} has {text!r} ({type(text).__name__})")


def check_lengths(columns: Mapping[str, Sequence[object]]) -> None:
    """Refuse columns of different lengths.

    Raises:
        ValueError: Naming the lengths, and the first row that is missing.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        shortest = min(lengths, key=lengths.__getitem__)
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"columns must have one length, {shortest} lacks row {lengths[shortest]}: got {told}")


def check_numbers(name: str, values: Iterable[float]) -> NDArray[np.float64]:
    """Return a column of finite numbers, (N).

    Raises:
        TypeError: If a value is no number.
        ValueError: If a value is NaN or infinite.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of numbers, got {type(values).__name__}")
    rows = [_plain(value) for value in values]
    for row, value in enumerate(rows):
        if not isinstance(value, Real):
            raise TypeError(f"{name} must hold numbers, row {row} is {value!r} ({type(value).__name__})")
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            raise ValueError(f"{name} must be finite, row {row} is too large for a float")
        if not isfinite(value):
            raise ValueError(f"{name} must be finite, row {row} is {value!r}")
    return np.array(rows, dtype=np.float64)


def check_labels(name: str, values: Iterable[float]) -> NDArray[np.int64]:
    """Return a column of labels, 0 or 1, (N).

    Raises:
        TypeError: If a value is no number.
        ValueError: If a value is another number.
    """
    labels = check_numbers(name, values)
    for row in np.flatnonzero((labels != 0) & (labels != 1)):
        raise ValueError(f"{name} must be 0 or 1, row {row} is {labels[row]:g}")
    return labels.astype(np.int64)


def similarity_names(names: Iterable[str | SimilarityFunction] | None, main: str | None) -> list[str]:
    """Return the names of the similarities to measure; none stands for that of the model.

    Args:
        names: As a user gives them.
        main: The one that the primary metric is about; alone it is also the one that is measured.

    Raises:
        TypeError: If they are one text.
        ValueError: If a name is unknown or there twice, or the main one is not among them.
    """
    if isinstance(names, str):
        raise TypeError(f"similarity_fn_names must be a list of names, got {names!r}")
    found = [SimilarityFunction(name).value for name in names or ()] or ([main] if main else [])
    if len(set(found)) < len(found):
        raise ValueError(f"similarity_fn_names must be different, got {found}")
    if main is not None and main not in found:
        raise ValueError(f"the main similarity must be one of similarity_fn_names {found}, got {main!r}")
    return found


def similarity_name(function: str | SimilarityFunction | None) -> str | None:
    """Return the name of a similarity.

    Raises:
        ValueError: If it is unknown.
    """
    return None if function is None else SimilarityFunction(function).value


def _plain(value: object) -> object:
    """Take a number out of a numpy or torch scalar."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", 1) == 0 else value
