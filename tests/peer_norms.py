"""Norms by the root mean square of transformers, as exact as the weights; its own compute in float32."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

NORMS = {
    "eurobert": "EuroBertRMSNorm",
    "llama": "LlamaRMSNorm",
    "mistral": "MistralRMSNorm",
    "mt5": "MT5LayerNorm",
    "qwen2": "Qwen2RMSNorm",
    "qwen3": "Qwen3RMSNorm",
    "t5": "T5LayerNorm",
}
"""Class of each family's norm."""


def make_norms_exact(monkeypatch: pytest.MonkeyPatch, *families: str) -> None:
    """Evaluate the formula of these families' norms in the dtype of what they read, for the time of a test."""
    for family in families:
        module = import_module(f"transformers.models.{family}.modeling_{family}")
        monkeypatch.setattr(getattr(module, NORMS[family]), "forward", _forward)


def _forward(self: Any, hidden: Tensor) -> Tensor:  # noqa: ANN401 - a peer's class
    variance = hidden.square().mean(-1, keepdim=True)
    product: Tensor = self.weight * (hidden * torch.rsqrt(variance + self.variance_epsilon))
    return product
