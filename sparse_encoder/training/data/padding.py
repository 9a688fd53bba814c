"""Batches of rows that are tokens already: stacked as they are, or padded; knows tokenizers by their padding only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparse_encoder.token_rows import LABELS, SINGLE_LABELS, Row, RowPadding, check_padding, stack_rows
from sparse_encoder.training.data.collator import Batch

__all__ = ["LABELS", "SINGLE_LABELS", "DataCollatorWithPadding", "default_data_collator"]


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
    return stack_rows(features)


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
        check_padding(self.padding, self.max_length)

    def __call__(self, features: Sequence[Row]) -> Batch:
        """Return the batch of some rows; ``label`` and ``label_ids`` become ``labels``."""
        how = RowPadding(
            pad_token_id=self.tokenizer.pad_token_id,
            side=self.tokenizer.padding_side,
            padding=self.padding,
            max_length=self.max_length,
            multiple=self.pad_to_multiple_of,
        )
        return stack_rows(how.pad(features))
