"""Cuts the features of texts into mini-batches, by texts or by tokens; knows neither models nor losses.

Axes: B texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sparse_encoder.losses.checks import check_integer

MASK = "attention_mask"
WIDTH_STEP = 8
"""Widths of mini-batches are multiples of it, as long as the batch is that wide."""

FeatureMap = Mapping[str, Any]  # tensors, and what is said of the texts as a whole


@dataclass(frozen=True, kw_only=True, slots=True)
class MiniBatchSize:
    """How large a mini-batch may be.

    Raises:
        TypeError: If a number is not an integer.
        ValueError: If it is below 1.
    """

    texts: int = 32
    """Most texts; not looked at if ``tokens`` is set."""
    tokens: int | None = None
    """Most tokens, padding left out; a longer text is a mini-batch of its own."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_integer("mini_batch_size", self.texts)
        if self.tokens is not None:
            check_integer("mini_batch_num_tokens", self.tokens)


def mini_batches(features: FeatureMap, size: MiniBatchSize) -> list[dict[str, Any]]:
    """Cut the features of texts into mini-batches, in their order.

    Padding behind the longest text of a mini-batch is cut off. How long texts are has to be read from the device, once.

    Args:
        features: Tensors (B, ...), those of tokens (B, T, ...) with ``attention_mask`` (B, T) among them; everything
            else is handed to each mini-batch as it is.
        size: How large they may be.

    Raises:
        ValueError: If there is no tensor to cut, or mini-batches go by tokens and there is no mask to count them by.
    """
    tensors = {name: value for name, value in features.items() if isinstance(value, Tensor) and value.dim() > 0}
    if not tensors:
        raise ValueError(f"features have no tensor that could be cut into mini-batches, only {sorted(features)}")
    mask = tensors.get(MASK)
    num_rows = len(next(iter(tensors.values())) if mask is None else mask)
    rest = {name: value for name, value in features.items() if name not in tensors}
    if mask is None:
        if size.tokens is not None:
            raise ValueError(f"mini_batch_num_tokens counts the {MASK!r} of texts; these have {sorted(features)} only")
        return [
            {**rest, **_rows(tensors, num_rows, start, start + size.texts)} for start in range(0, num_rows, size.texts)
        ]
    present = mask != 0
    ends = (present.cumsum(dim=1).argmax(dim=1) + 1).tolist()  # of each text's last token
    counts = present.sum(dim=1).tolist() if size.tokens is not None else []
    cuts = []
    for start, end in _ranges(num_rows, counts, size):
        width = min(mask.shape[1], -(-max(ends[start:end]) // WIDTH_STEP) * WIDTH_STEP)
        rows = _rows(tensors, num_rows, start, end)
        cuts.append({**rest, **{name: _narrow(value, mask.shape[1], width) for name, value in rows.items()}})
    return cuts


def _ranges(num_rows: int, counts: list[int], size: MiniBatchSize) -> list[tuple[int, int]]:
    """Return where mini-batches start and end, for the tokens of each text."""
    if size.tokens is None:
        return [(start, min(start + size.texts, num_rows)) for start in range(0, num_rows, size.texts)]
    ranges, start, total = [], 0, 0
    for row, count in enumerate(counts):
        if row > start and total + count > size.tokens:
            ranges.append((start, row))
            start, total = row, 0
        total += count
    return [*ranges, (start, num_rows)]


def _rows(tensors: dict[str, Tensor], num_rows: int, start: int, end: int) -> dict[str, Tensor]:
    return {name: value[start:end] if len(value) == num_rows else value for name, value in tensors.items()}


def _narrow(value: Tensor, full: int, width: int) -> Tensor:
    """Cut the token axis off, if there is one."""
    return value[:, :width] if value.dim() > 1 and value.shape[1] == full else value
