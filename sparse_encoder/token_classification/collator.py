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
        ValueError: If an option has another value.
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

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:  # Any: tensors or arrays
        """Return the batch of some rows.

        Args:
            features: ``input_ids`` of each, and what else there is for each token; ``labels`` or ``label`` may be
                missing.

        Returns:
            Tensors, (B, T); ``labels`` int64.

        Raises:
            ValueError: If a row has not a label for each token, naming the row.
        """
        name = next((name for name in _NAMES if features and name in features[0]), None)
        rows = []
        for number, row in enumerate(features):
            values = {
                key: value.tolist() if isinstance(value, Tensor | np.ndarray) else value for key, value in row.items()
            }
            if name is not None:
                labels = values.pop(name, None)
                if labels is None or len(labels) != len(values["input_ids"]):
                    got = "none" if labels is None else str(len(labels))
                    raise ValueError(
                        f"row {number} must have a label for each of its {len(values['input_ids'])} tokens, got {got}"
                    )
                values[LABELS] = labels
            rows.append(values)
        how = RowPadding(
            pad_token_id=self.tokenizer.pad_token_id,
            side=self.tokenizer.padding_side,
            padding=self.padding,
            max_length=self.max_length,
            multiple=self.pad_to_multiple_of,
            fillers={LABELS: self.label_pad_token_id},
        )
        batch = stack_rows(how.pad(rows))
        return {key: value.numpy() for key, value in batch.items()} if self.return_tensors == "np" else batch
