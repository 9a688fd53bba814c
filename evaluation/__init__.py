"""How good a model is: pure metrics, and evaluators that encode texts and measure what comes of it."""

from __future__ import annotations

from sparse_encoder.evaluation.base import BaseEvaluator, SentenceEvaluator, SparseEvaluator
from sparse_encoder.evaluation.binary_classification import SparseBinaryClassificationEvaluator
from sparse_encoder.evaluation.collections import Collection, load_collection
from sparse_encoder.evaluation.embedding_similarity import SparseEmbeddingSimilarityEvaluator
from sparse_encoder.evaluation.information_retrieval import SparseInformationRetrievalEvaluator
from sparse_encoder.evaluation.mse import SparseMSEEvaluator
from sparse_encoder.evaluation.nano_beir_evaluator import SparseNanoBEIREvaluator
from sparse_encoder.evaluation.reciprocal_rank_fusion import ReciprocalRankFusionEvaluator
from sparse_encoder.evaluation.reranking import SparseRerankingEvaluator
from sparse_encoder.evaluation.run_metrics import measure_run
from sparse_encoder.evaluation.sequential import SequentialEvaluator
from sparse_encoder.evaluation.translation import SparseTranslationEvaluator
from sparse_encoder.evaluation.trec_files import read_qrels, read_run, write_qrels, write_run
from sparse_encoder.evaluation.triplet import SparseTripletEvaluator
from sparse_encoder.similarity import SimilarityFunction

__all__ = [
    "BaseEvaluator",
    "Collection",
    "ReciprocalRankFusionEvaluator",
    "SentenceEvaluator",
    "SequentialEvaluator",
    "SimilarityFunction",
    "SparseBinaryClassificationEvaluator",
    "SparseEmbeddingSimilarityEvaluator",
    "SparseEvaluator",
    "SparseInformationRetrievalEvaluator",
    "SparseMSEEvaluator",
    "SparseNanoBEIREvaluator",
    "SparseRerankingEvaluator",
    "SparseTranslationEvaluator",
    "SparseTripletEvaluator",
    "load_collection",
    "measure_run",
    "read_qrels",
    "read_run",
    "write_qrels",
    "write_run",
]
