"""Rows of numbers for every token: filled up to one length, and stacked. Knows tokenizers by their padding only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

LABELS = "labels"
SINGLE_LABELS = ("label", "label_ids")
"""Columns that a batch has as ``labels``."""
_FILLERS = {"attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1}

Row = Mapping[str, Any]  # numbers and lists of them; texts are left out


@dataclass(frozen=True, kw_only=True, slots=True)
class RowPadding:
    """How rows are filled up.

    Raises:
        ValueError: If ``padding`` is another, or ``max_length`` is missing.
    """

    pad_token_id: int
    side: str
    padding: bool | str = True
    """``True`` or ``"longest"`` for the longest row; ``"max_length"`` for ``max_length``."""
    max_length: int | None = None
    multiple: int | None = None
    """Round the length up to a multiple of this."""
    fillers: Mapping[str, int] = field(default_factory=dict)
    """What further columns with a value for every token are filled up with."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_padding(self.padding, self.max_length)

    def pad(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return the rows at one length; each has an ``attention_mask``."""
        width = max((len(row["input_ids"]) for row in rows), default=0)
        if self.padding == "max_length" and self.max_length is not None:
            width = max(width, self.max_length)
        multiple = self.multiple or 1
        width = -(-width // multiple) * multiple
        fillers = {**_FILLERS, **self.fillers, "input_ids": self.pad_token_id}
        padded = []
        for row in rows:
            count = len(row["input_ids"])
            values = dict(row)
            values.setdefault("attention_mask", [1] * count)
            for name, value in values.items():
                if name in fillers and len(value) == count:
                    rest = [fillers[name]] * (width - count)
                    values[name] = rest + list(value) if self.side == "left" else list(value) + rest
            padded.append(values)
        return padded


def check_padding(padding: bool | str, max_length: int | None) -> None:
    """Check how rows are to be filled up.

    Raises:
        ValueError: If ``padding`` is unknown, or ``max_length`` is missing.
    """
    if padding not in (True, "longest", "max_length"):
        raise ValueError(f"padding must be True, 'longest' or 'max_length', got {padding!r}")
    if padding == "max_length" and max_length is None:
        raise ValueError("padding='max_length' needs max_length, the positions of every row")


def stack_rows(rows: Sequence[Row]) -> dict[str, Any]:
    """Stack the columns of some rows; ``label`` and ``label_ids`` become ``labels``, texts and None are left out.

    Args:
        rows: With the columns of the first; values of a column have one shape.

    Returns:
        Tensors: whole numbers as int64, others as float32.

    Raises:
        ValueError: If values of a column differ in shape.
    """
    numeric = [name for name, value in (rows[0] if rows else {}).items() if not isinstance(value, str | None)]
    return {LABELS if name in SINGLE_LABELS else name: _stacked(name, rows) for name in numeric}


def _stacked(column: str, rows: Sequence[Row]) -> Tensor:
    values = [row[column] for row in rows]
    if isinstance(values[0], Tensor):
        return torch.stack(values)
    try:
        return torch.as_tensor(values)
    except ValueError as reason:
        raise ValueError(
            f"the values of {column!r} differ in length, so they cannot be stacked; give a data_collator that pads, "
            "or a processing_class"
        ) from reason
