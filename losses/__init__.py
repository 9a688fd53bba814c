"""Training objectives: the columns of a batch in, a scalar (or named scalars) out."""

from __future__ import annotations

from sparse_encoder.losses.base import EmbeddingLoss, LossValue, Regularizer, embed
from sparse_encoder.losses.flops import FlopsLoss
from sparse_encoder.losses.multiple_negatives import SparseMultipleNegativesRankingLoss
from sparse_encoder.losses.splade import SpladeLoss

__all__ = [
    "EmbeddingLoss",
    "FlopsLoss",
    "LossValue",
    "Regularizer",
    "SparseMultipleNegativesRankingLoss",
    "SpladeLoss",
    "embed",
]
