"""Checks of samples, dicts of a query and its texts; each error names the sample and its column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Sample = Mapping[str, "str | Sequence[str]"]


def check_samples(name: str, samples: Iterable[Sample] | Mapping[str, Sample], columns: Sequence[str]) -> list[Sample]:
    """Return samples as a list; of a dict its values.

    Raises:
        TypeError: If they are no list, or one of them is no dict.
        ValueError: If there are none, or one lacks a column.
    """
    if isinstance(samples, str) or not isinstance(samples, Iterable):
        raise TypeError(f"{name} must be a list of dicts, got {type(samples).__name__}")
    rows = list(samples.values() if isinstance(samples, Mapping) else samples)
    for row, sample in enumerate(rows):
        if not isinstance(sample, Mapping):
            raise TypeError(f"{name} must be dicts, sample {row} is {type(sample).__name__}")
        if missing := [column for column in columns if column not in sample]:
            raise ValueError(f"{name} must have {list(columns)}, sample {row} lacks {missing}")
    if not rows:
        raise ValueError(f"{name} must not be empty")
    return rows


def texts_of(sample: Sample, column: str, where: str) -> list[str]:
    """Return a column of one text or several as a list.

    Args:
        sample: One that has the column.
        column: Its name.
        where: Names the sample in errors.

    Raises:
        TypeError: If it is neither a text nor a list of texts.
    """
    value = sample[column]
    texts = [value] if isinstance(value, (str, Mapping)) else list(value) if isinstance(value, Iterable) else [value]
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{column} must be a text or texts, {where} has {text!r} ({type(text).__name__})")
    return texts


def check_rank(name: str, k: int) -> int:
    """Return a number of places.

    Raises:
        ValueError: If it is below 1.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"{name} must be an integer from 1 up, got {k!r}")
    return k
