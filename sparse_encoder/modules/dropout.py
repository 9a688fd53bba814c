"""Dropout of embeddings in training."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from sparse_encoder.modules.base import Module
from sparse_encoder.modules.features import Features


class Dropout(Module):
    """Zero a share of each embedding in training and scale up the rest.

    Args:
        dropout: The share, from 0 to below 1.

    Raises:
        ValueError: If it is out of range.
    """

    config_keys: ClassVar[tuple[str, ...]] = ("dropout",)

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.dropout = dropout
        self.dropout_layer = nn.Dropout(dropout)

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Apply dropout to ``sentence_embedding``."""
        return Features({**features, "sentence_embedding": self.dropout_layer(features["sentence_embedding"])})
