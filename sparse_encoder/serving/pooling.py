"""SPLADE pooling in numpy, for graphs that end with logits, as sentence-transformers and optimum write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STRATEGIES, ACTIVATIONS = ("max", "sum"), ("relu", "log1p_relu")


@dataclass(frozen=True, kw_only=True, slots=True)
class LogitPooling:
    """Say how logits become term weights; the module ``SpladePooling`` has the formula."""

    strategy: str = "max"
    activation: str = "relu"

    def __post_init__(self) -> None:
        """Check the names."""
        if self.strategy not in STRATEGIES:
            raise ValueError(f"unknown pooling_strategy {self.strategy!r}; choose from {list(STRATEGIES)}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation_function {self.activation!r}; choose from {list(ACTIVATIONS)}")

    def __call__(self, logits: NDArray[np.float32], attention_mask: NDArray[Any]) -> NDArray[np.float32]:
        """Pool a batch.

        Args:
            logits: Of each token, (B, T, V).
            attention_mask: 1 for tokens, 0 for padding, (B, T); Any: an integer type.

        Returns:
            Term weights, (B, V).
        """
        rows = []
        for values, mask in zip(logits, attention_mask.astype(bool), strict=True):
            seen = np.maximum(values[mask], 0)  # (tokens, V)
            pooled = seen.max(axis=0, initial=0) if self.strategy == "max" else self._activated(seen).sum(axis=0)
            rows.append(self._activated(pooled) if self.strategy == "max" else pooled)
        return np.stack(rows).astype(np.float32, copy=False)

    def _activated(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        once = np.log1p(values)
        return once if self.activation == "relu" else np.log1p(once)
