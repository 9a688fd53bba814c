"""Batches of rows that have a label for every token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from sparse_encoder.token_classification.alignment import IGNORED
from sparse_encoder.token_rows import LABELS, RowPadding, check_padding, stack_rows

_NAMES = ("label", LABELS)
_FILLERS = {"position_ids": 0, "chain_mask": 0}
_TAKEN = {"input_ids", "attention_mask", "token_type_ids", "special_tokens_mask", "label", LABELS, *_FILLERS}
"""Columns that may hold a number for every token."""


@dataclass
class DataCollatorForTokenClassification:
    """Pad rows, and their labels by a number that the loss leaves out, on the tokenizer's padding side.

    Unlike in transformers 5.23 the batch always has ``labels``, also where the column is ``label``.

    Args:
        tokenizer: Has ``pad_token_id`` and ``padding_side``.
        padding: ``True`` or ``"longest"`` for the longest row; ``"max_length"`` for ``max_length``.
        max_length: Positions of every row with ``padding="max_length"``.
        pad_to_multiple_of: Round the length up to a multiple of this.
        label_pad_token_id: Label of padding.
        return_tensors: ``"pt"`` or ``"np"``.

    Raises:
        ValueError: If an option has another value, or the tokenizer has no padding token.
    """

    tokenizer: Any  # any library's
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    label_pad_token_id: int = IGNORED
    return_tensors: str = "pt"

    def __post_init__(self) -> None:
        """Check the options."""
        if self.return_tensors not in ("pt", "np"):
            raise ValueError(f"unknown return_tensors {self.return_tensors!r}; choose 'pt' or 'np'")
        check_padding(self.padding, self.max_length)
        if self.pad_to_multiple_of is not None and self.pad_to_multiple_of < 1:
            raise ValueError(f"pad_to_multiple_of must be at least 1, or None, got {self.pad_to_multiple_of}")
        if getattr(self.tokenizer, "pad_token_id", None) is None:
            raise ValueError(
                f"the tokenizer must have a padding token, got {type(self.tokenizer).__name__} without; "
                "set one, as tokenizer.pad_token = tokenizer.eos_token"
            )

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:  # Any: tensors or arrays
        """Return the batch of some rows.

        Args:
            features: ``input_ids`` of each, and what else there is for each token; ``labels`` or ``label`` may be
                missing from all of them. Texts and None are left out.

        Returns:
            Tensors, (B, T); ``labels`` int64.

        Raises:
            ValueError: If there is no row, a row has not a label for each token, or a list that no model takes; it
                names the row.
        """
        if not features:
            raise ValueError("there must be at least one row, got none")
        name = next((name for name in _NAMES if any(row.get(name) is not None for row in features)), None)
        how = RowPadding(
            pad_token_id=self.tokenizer.pad_token_id,
            side=self.tokenizer.padding_side,
            padding=self.padding,
            max_length=self.max_length,
            multiple=self.pad_to_multiple_of,
            fillers={LABELS: self.label_pad_token_id, **_FILLERS},
        )
        batch = stack_rows(how.pad([_checked(row, number, name) for number, row in enumerate(features)]))
        return {key: value.numpy() for key, value in batch.items()} if self.return_tensors == "np" else batch


def _checked(row: Mapping[str, Any], number: int, name: str | None) -> dict[str, Any]:  # Any: numbers, lists, tensors
    """Return a row with lists, its labels under ``labels``.

    Args:
        row: As the collator is given it.
        number: Its place.
        name: Column of the labels, None if there are none.
    """
    values = {
        key: value.tolist() if isinstance(value, Tensor | np.ndarray) else value
        for key, value in row.items()
        if value is not None
    }
    if not isinstance(values.get("input_ids"), Sequence):
        raise ValueError(f"row {number} must have a list of input_ids, got the columns {sorted(values)}")
    labels, count = None if name is None else values.pop(name, None), len(values["input_ids"])
    strange = sorted(key for key, value in values.items() if isinstance(value, list) and key not in _TAKEN)
    if strange:
        raise ValueError(
            f"row {number} has lists that no model takes: {strange}; leave them out, as with "
            f"dataset.map(..., remove_columns={strange})"
        )
    if name is None:
        return values
    if not isinstance(labels, Sequence) or isinstance(labels, str) or len(labels) != count:
        got = "none" if labels is None else len(labels) if isinstance(labels, list | tuple) else repr(labels)
        raise ValueError(f"row {number} must have a label for each of its {count} tokens, got {got}")
    if any(isinstance(label, str) for label in labels):
        raise ValueError(
            f"row {number} must have numbers for labels, got {labels!r:.80}; see tokenize_and_align_labels"
        )
    return {**values, LABELS: labels}
