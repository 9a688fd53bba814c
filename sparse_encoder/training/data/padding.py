"""Batches of rows that are tokens already: stacked as they are, or padded; knows tokenizers by their padding only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparse_encoder.training.data.collator import Batch

LABELS = "labels"
SINGLE_LABELS = ("label", "label_ids")
"""Columns that a batch has as ``labels``."""
_FILLERS = {"attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1}

Row = Mapping[str, Any]  # numbers and lists of them; texts are left out


def default_data_collator(features: Sequence[Row], return_tensors: str = "pt") -> Batch:
    """Stack the columns of some rows; ``label`` and ``label_ids`` become ``labels``.

    Args:
        features: Rows with the columns of the first; values of a column have one shape. Texts and None are left out.
        return_tensors: ``"pt"``: tensors of torch.

    Raises:
        ValueError: If values of a column differ in shape, or other tensors are asked for.
    """
    if return_tensors != "pt":
        raise ValueError(f"return_tensors must be 'pt', got {return_tensors!r}")
    return {_name(column): _stacked(column, features) for column in _numeric(features)}


@dataclass
class DataCollatorWithPadding:
    """Stack the columns of some rows, after filling up lists of token positions to one length.

    Args:
        tokenizer: Has ``pad_token_id`` and ``padding_side``.
        padding: ``True`` or ``"longest"`` for the longest row; ``"max_length"`` for ``max_length``.
        max_length: Positions of every row with ``padding="max_length"``.
        pad_to_multiple_of: Round the length up to a multiple of this.

    Raises:
        ValueError: If ``padding`` is another, or ``max_length`` is missing.
    """

    tokenizer: Any  # any library's
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        if self.padding not in (True, "longest", "max_length"):
            raise ValueError(f"padding must be True, 'longest' or 'max_length', got {self.padding!r}")
        if self.padding == "max_length" and self.max_length is None:
            raise ValueError("padding='max_length' needs max_length")

    def __call__(self, features: Sequence[Row]) -> Batch:
        """Return the batch of some rows; ``label`` and ``label_ids`` become ``labels``."""
        if not features:
            return {}
        width = self._width(features)
        padded = [{name: self._filled(name, value, row, width) for name, value in row.items()} for row in features]
        if padded and "input_ids" in padded[0] and "attention_mask" not in padded[0]:
            for row, old in zip(padded, features, strict=True):
                row["attention_mask"] = self._fill([1] * len(old["input_ids"]), 0, width)
        return default_data_collator(padded)

    def _width(self, features: Sequence[Row]) -> int:
        """Return the length of the batch."""
        width = max(len(row["input_ids"]) for row in features)
        if self.padding == "max_length" and self.max_length is not None:
            width = max(width, self.max_length)
        multiple = self.pad_to_multiple_of or 1
        return -(-width // multiple) * multiple

    def _filled(self, name: str, value: Any, row: Row, width: int) -> Any:  # noqa: ANN401  (numbers, lists of them)
        """Fill up a list that has a value for every token."""
        filler = self.tokenizer.pad_token_id if name == "input_ids" else _FILLERS.get(name)
        if filler is None or len(value) != len(row["input_ids"]):
            return value
        return self._fill(list(value), filler, width)

    def _fill(self, values: list[int], filler: int, width: int) -> list[int]:
        rest = [filler] * (width - len(values))
        return rest + values if self.tokenizer.padding_side == "left" else values + rest


def _numeric(features: Sequence[Row]) -> list[str]:
    """Return the columns that a tensor can hold."""
    return [name for name, value in (features[0] if features else {}).items() if not isinstance(value, str | None)]


def _name(column: str) -> str:
    return LABELS if column in SINGLE_LABELS else column


def _stacked(column: str, features: Sequence[Row]) -> Tensor:
    """Return the values of a column as a tensor; whole numbers as int64, others as float32."""
    values = [row[column] for row in features]
    if isinstance(values[0], Tensor):
        return torch.stack(values)
    try:
        return torch.as_tensor(values)
    except ValueError as reason:
        raise ValueError(
            f"the values of {column!r} differ in length, so they cannot be stacked; give a data_collator that pads, "
            "or a processing_class"
        ) from reason
