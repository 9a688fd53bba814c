"""The parts that an encoder is a sequence of; each reads some features of a batch and adds others."""

from __future__ import annotations

from sparse_encoder.modules.base import InputModule, LoadSettings, Module
from sparse_encoder.modules.dense import Dense
from sparse_encoder.modules.dropout import Dropout
from sparse_encoder.modules.features import Features, VocabularyProjection
from sparse_encoder.modules.normalize import Normalize
from sparse_encoder.modules.pooling import Pooling
from sparse_encoder.modules.router import Asym, Router
from sparse_encoder.modules.sparse_auto_encoder import SparseAutoEncoder
from sparse_encoder.modules.sparse_static_embedding import SparseStaticEmbedding
from sparse_encoder.modules.splade_pooling import SpladePooling
from sparse_encoder.modules.transformer import MLMTransformer, Transformer

__all__ = [
    "Asym",
    "Dense",
    "Dropout",
    "Features",
    "InputModule",
    "LoadSettings",
    "MLMTransformer",
    "Module",
    "Normalize",
    "Pooling",
    "Router",
    "SparseAutoEncoder",
    "SparseStaticEmbedding",
    "SpladePooling",
    "Transformer",
    "VocabularyProjection",
]
