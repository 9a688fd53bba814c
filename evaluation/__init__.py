"""How good a model is: pure metrics, and evaluators that encode texts and measure what comes of it."""

from __future__ import annotations

from sparse_encoder.evaluation.base import BaseEvaluator, SentenceEvaluator, SparseEvaluator
from sparse_encoder.evaluation.information_retrieval import SparseInformationRetrievalEvaluator
from sparse_encoder.evaluation.sequential import SequentialEvaluator
from sparse_encoder.similarity import SimilarityFunction

__all__ = [
    "BaseEvaluator",
    "SentenceEvaluator",
    "SequentialEvaluator",
    "SimilarityFunction",
    "SparseEvaluator",
    "SparseInformationRetrievalEvaluator",
]
