"""Texts for a first module that users wrote: it turns them into features by itself, and nobody knows their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class OwnTexts:
    """Stand in for the tokens of texts where there are only features, made batch by batch.

    Args:
        texts: The texts.
        preprocess: Makes the features of some of them.
    """

    def __init__(self, texts: Sequence[str], preprocess: Callable[[list[str]], dict[str, Any]]) -> None:
        self._texts = texts
        self._preprocess = preprocess

    @property
    def lengths(self) -> list[int]:
        """One for each text, so that batches are cut by the number of texts alone and keep their order."""
        return [1] * len(self._texts)

    def pad(
        self, rows: Sequence[int], *, length: int | None = None, device: torch.device | str | None = None
    ) -> dict[str, Any]:
        """Make the features of some texts.

        Args:
            rows: Their numbers.
            length: Left to the module, which pads as it likes.
            device: Where the tensors go.
        """
        features = self._preprocess([self._texts[row] for row in rows])
        return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in features.items()}
