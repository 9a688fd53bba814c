"""The parts of all evaluators, where scripts for sentence-transformers 6 import them from."""

from __future__ import annotations

from sparse_encoder.evaluation import BaseEvaluator, SentenceEvaluator, SequentialEvaluator

__all__ = ["BaseEvaluator", "SentenceEvaluator", "SequentialEvaluator"]
