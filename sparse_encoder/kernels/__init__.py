"""The hot spots: vocabulary projections that are reduced over tokens tile by tile. They know tensors only."""

from __future__ import annotations

from sparse_encoder.kernels.activations import ACTIVATIONS, Activation, activation_named
from sparse_encoder.kernels.max_projection import max_projection
from sparse_encoder.kernels.sum_projection import sum_projection

__all__ = ["ACTIVATIONS", "Activation", "activation_named", "max_projection", "sum_projection"]
