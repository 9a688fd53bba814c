"""Training objectives: the columns of a batch in, a scalar (or named scalars) out."""

from __future__ import annotations

from sparse_encoder.losses.angle import SparseAnglELoss
from sparse_encoder.losses.anti_zero import AntiZeroLoss
from sparse_encoder.losses.approximate_ndcg import SparseApproxNDCGLoss
from sparse_encoder.losses.base import EmbeddingLoss, LossValue, Regularizer, embed
from sparse_encoder.losses.cached_splade import CachedSpladeLoss
from sparse_encoder.losses.cosent import SparseCoSENTLoss
from sparse_encoder.losses.cosine_similarity import SparseCosineSimilarityLoss
from sparse_encoder.losses.csr import CSRLoss, CSRReconstructionLoss
from sparse_encoder.losses.distill_kl_div import SparseDistillKLDivLoss
from sparse_encoder.losses.document_frequency_flops import DFFlopsLoss
from sparse_encoder.losses.flops import FlopsLoss
from sparse_encoder.losses.gist import SparseGISTEmbedLoss
from sparse_encoder.losses.guides import Guide, TeacherEnsemble, ensemble_scores, min_max_per_query
from sparse_encoder.losses.in_batch_distillation import SparseInBatchDistillKLDivLoss, SparseInBatchMarginMSELoss
from sparse_encoder.losses.joint_flops import JointFlopsLoss
from sparse_encoder.losses.l1 import L1Loss
from sparse_encoder.losses.lambda_rank import SparseLambdaRankLoss
from sparse_encoder.losses.margin_mse import SparseMarginMSELoss
from sparse_encoder.losses.mse import SparseMSELoss
from sparse_encoder.losses.multiple_negatives import SparseMultipleNegativesRankingLoss
from sparse_encoder.losses.rank_net import SparseRankNetLoss
from sparse_encoder.losses.sparsity_target import SparsityTarget
from sparse_encoder.losses.splade import SpladeLoss
from sparse_encoder.losses.taught import TaughtLoss
from sparse_encoder.losses.triplet import SparseTripletLoss, TripletDistanceMetric
from sparse_encoder.losses.weighted_sum import WeightedSumLoss, WeightedSumRegularizer

__all__ = [
    "AntiZeroLoss",
    "CSRLoss",
    "CSRReconstructionLoss",
    "CachedSpladeLoss",
    "DFFlopsLoss",
    "EmbeddingLoss",
    "FlopsLoss",
    "Guide",
    "JointFlopsLoss",
    "L1Loss",
    "LossValue",
    "Regularizer",
    "SparseAnglELoss",
    "SparseApproxNDCGLoss",
    "SparseCoSENTLoss",
    "SparseCosineSimilarityLoss",
    "SparseDistillKLDivLoss",
    "SparseGISTEmbedLoss",
    "SparseInBatchDistillKLDivLoss",
    "SparseInBatchMarginMSELoss",
    "SparseLambdaRankLoss",
    "SparseMSELoss",
    "SparseMarginMSELoss",
    "SparseMultipleNegativesRankingLoss",
    "SparseRankNetLoss",
    "SparseTripletLoss",
    "SparsityTarget",
    "SpladeLoss",
    "TaughtLoss",
    "TeacherEnsemble",
    "TripletDistanceMetric",
    "WeightedSumLoss",
    "WeightedSumRegularizer",
    "embed",
    "ensemble_scores",
    "min_max_per_query",
]
