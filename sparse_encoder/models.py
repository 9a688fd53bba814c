"""The modules under the name of the package that scripts of 5.0 to 5.3 import them from."""

from __future__ import annotations

from sparse_encoder.modules import (
    Asym,
    Dense,
    Dropout,
    InputModule,
    MLMTransformer,
    Module,
    Normalize,
    Pooling,
    Router,
    SparseAutoEncoder,
    SparseStaticEmbedding,
    SpladePooling,
    Transformer,
)

__all__ = [
    "Asym",
    "Dense",
    "Dropout",
    "InputModule",
    "MLMTransformer",
    "Module",
    "Normalize",
    "Pooling",
    "Router",
    "SparseAutoEncoder",
    "SparseStaticEmbedding",
    "SpladePooling",
    "Transformer",
]
