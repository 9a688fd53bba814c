"""The names of similarities, where scripts for sentence-transformers 5.0 to 5.3 import them from."""

from __future__ import annotations

from sparse_encoder.similarity import SimilarityFunction

__all__ = ["SimilarityFunction"]
