"""What a training run tells in the README of its model: the callback that follows it, and cards of other models."""

from __future__ import annotations

from sparse_encoder.training.card.callback import ModelCardCallback
from sparse_encoder.training.card.create import CardOptions, create_model_card
from sparse_encoder.training.card.generic import generic_card, write_generic_card

__all__ = ["CardOptions", "ModelCardCallback", "create_model_card", "generic_card", "write_generic_card"]
