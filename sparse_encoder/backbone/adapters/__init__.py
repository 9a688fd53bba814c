"""Low-rank adapters on the linear layers of a model, saved as PEFT saves them. Knows nothing of training."""

from __future__ import annotations

from sparse_encoder.backbone.adapters.config import LoraConfig
from sparse_encoder.backbone.adapters.layer import LoraLinear
from sparse_encoder.backbone.adapters.mixin import ModelAdapters

__all__ = ["LoraConfig", "LoraLinear", "ModelAdapters"]
