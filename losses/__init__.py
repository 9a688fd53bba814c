"""Training objectives: the columns of a batch in, a scalar (or named scalars) out."""

from __future__ import annotations

from sparse_encoder.losses.angle import SparseAnglELoss, pairwise_angle_sim
from sparse_encoder.losses.base import EmbeddingLoss, LossValue, Regularizer, embed
from sparse_encoder.losses.cached_splade import CachedSpladeLoss
from sparse_encoder.losses.cosent import SparseCoSENTLoss
from sparse_encoder.losses.cosine_similarity import SparseCosineSimilarityLoss
from sparse_encoder.losses.csr import CSRLoss, CSRReconstructionLoss
from sparse_encoder.losses.distill_kl_div import SparseDistillKLDivLoss
from sparse_encoder.losses.flops import FlopsLoss
from sparse_encoder.losses.margin_mse import SparseMarginMSELoss
from sparse_encoder.losses.mse import SparseMSELoss
from sparse_encoder.losses.multiple_negatives import SparseMultipleNegativesRankingLoss
from sparse_encoder.losses.splade import SpladeLoss
from sparse_encoder.losses.triplet import SparseTripletLoss, TripletDistanceMetric

__all__ = [
    "CSRLoss",
    "CSRReconstructionLoss",
    "CachedSpladeLoss",
    "EmbeddingLoss",
    "FlopsLoss",
    "LossValue",
    "Regularizer",
    "SparseAnglELoss",
    "SparseCoSENTLoss",
    "SparseCosineSimilarityLoss",
    "SparseDistillKLDivLoss",
    "SparseMSELoss",
    "SparseMarginMSELoss",
    "SparseMultipleNegativesRankingLoss",
    "SparseTripletLoss",
    "SpladeLoss",
    "TripletDistanceMetric",
    "embed",
    "pairwise_angle_sim",
]
