"""What the first rows of a dataset look like, column by column; knows neither datasets nor models.

Values may be anything that a dataset can hold: what is not a text, a number or a list is told by its kind alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparse_encoder.model_card_markdown import clean, describe, is_array, is_image

NUM_ROWS = 100
"""Rows that statistics are made of."""
NUM_SAMPLES = 3
MOST_SHARES = 10
"""Distinct whole numbers up to which the share of each is told, in the place of smallest, mean and largest."""

TokenCounter = Callable[[list[str]], list[int]]
Details = dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnFacts:
    """What is known of a column."""

    kind: str
    """Type of its values."""
    details: Details
    """Figures by name: smallest, mean and largest, or shares."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowFacts:
    """What is known of the first rows."""

    num_rows: int
    columns: dict[str, ColumnFacts]
    samples: list[dict[str, str]]


@dataclass(slots=True)
class _Column:
    """Kinds and sizes of the values of a column; not the values, which may be large."""

    kinds: Counter[str] = field(default_factory=Counter)
    sizes: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def add(self, value: Any) -> None:  # noqa: ANN401  (anything a dataset can hold)
        kind, size = _kind_and_size(value)
        self.kinds[kind] += 1
        if isinstance(value, str):
            self.texts.append(clean(value))
        elif size is not None:
            self.sizes.append(size)


def look_at_rows(rows: Iterable[object], count_tokens: TokenCounter | None = None) -> RowFacts:
    """Describe the columns of at most :data:`NUM_ROWS` rows, and keep a few as samples.

    Args:
        rows: Dicts; what is no dict has no columns and is left out.
        count_tokens: Counts the tokens of texts; without it characters are counted.

    Returns:
        What was found.
    """
    columns: dict[str, _Column] = {}
    samples: list[dict[str, str]] = []
    num_rows = 0
    for row, _ in zip(rows, range(NUM_ROWS), strict=False):
        if not isinstance(row, Mapping):
            continue
        num_rows += 1
        for name, value in row.items():
            columns.setdefault(str(name), _Column()).add(value)
        if len(samples) < NUM_SAMPLES:
            samples.append({str(name): describe(value) for name, value in row.items()})
    facts = {name: _facts(column, count_tokens) for name, column in columns.items()}
    return RowFacts(num_rows=num_rows, columns=facts, samples=samples)


def _kind_and_size(value: Any) -> tuple[str, float | None]:  # noqa: ANN401  (as above)
    """Return the kind of a value and its size: of a number itself, else items, bytes or pixels; None if it has none."""
    if is_array(value):
        if len(value.shape):
            return "array", float(math.prod(value.shape))
        value = value.item()
    if value is None or isinstance(value, str):
        return ("missing" if value is None else "string"), None
    if isinstance(value, bool | int | float):
        return type(value).__name__, _as_float(value)
    if isinstance(value, bytes | bytearray):
        return "bytes", float(len(value))
    if isinstance(value, list | tuple):
        return "list", float(len(value))
    if is_image(value):
        return "image", float(value.width * value.height)
    return ("dict" if isinstance(value, Mapping) else type(value).__name__), None


def _as_float(value: float) -> float | None:
    """Return a number as a float; None if it is too large to be one."""
    return float(value) if isinstance(value, float) or abs(value) < 2**1000 else None


def _facts(column: _Column, count_tokens: TokenCounter | None) -> ColumnFacts:
    """Sum up a column."""
    missing = column.kinds.pop("missing", 0)
    gaps = {"missing": f"{missing} rows"} if missing else {}
    kinds = sorted(column.kinds)
    if kinds == ["float", "int"]:
        kinds = ["float"]
    if len(kinds) != 1:
        return ColumnFacts(kind=" or ".join(kinds) or "missing", details=gaps)
    (kind,) = kinds
    return ColumnFacts(kind=kind, details={**_details(kind, column, count_tokens), **gaps})


def _details(kind: str, column: _Column, count_tokens: TokenCounter | None) -> Details:
    if kind == "string":
        counts = [len(text) for text in column.texts] if count_tokens is None else count_tokens(column.texts)
        return _range(counts, "characters" if count_tokens is None else "tokens", digits=2)
    units = {"list": "elements", "array": "elements", "bytes": "bytes", "image": "pixels"}
    if kind in units:
        if len(set(column.sizes)) == 1:
            return {"size": f"{int(column.sizes[0])} {units[kind]}"}
        return _range(column.sizes, units[kind], digits=2)
    if kind in ("bool", "int") and 0 < len(set(column.sizes)) <= MOST_SHARES:
        return _shares(kind, column.sizes)
    return _range([size for size in column.sizes if math.isfinite(size)], "", digits=2)


def _shares(kind: str, values: Sequence[float]) -> Details:
    """Tell how many rows have each value."""
    counts = Counter(values)
    about = "~" if len(counts) > 1 else ""
    names = {value: str(bool(value)) if kind == "bool" else str(int(value)) for value in counts}
    return {names[value]: f"{about}{counts[value] / len(values):.2%}" for value in sorted(counts)}


def _range(values: Sequence[float], unit: str, *, digits: int) -> Details:
    """Tell the smallest, the mean and the largest value."""
    if not values:
        return {}
    mean = math.fsum(value / len(values) for value in values)
    figures = {"min": min(values), "mean": mean, "max": max(values)}
    return {name: f"{_figure(value, digits)} {unit}".strip() for name, value in figures.items()}


def _figure(value: float, digits: int) -> str:
    """Return a number, whole if it is, rounded otherwise; small ones keep significant digits."""
    rounded = round(value, digits)
    if value and not rounded:
        return f"{value:.3g}"
    return str(int(rounded)) if rounded == int(rounded) and abs(rounded) < 1e15 else str(rounded)
