"""Exact search over sparse vectors, and BM25 as one more way to make them."""

from __future__ import annotations

from sparse_encoder.search.bm25 import BM25
from sparse_encoder.search.index import Hit, SearchResult, SparseIndex
from sparse_encoder.search.pruning import Pruning

__all__ = ["BM25", "Hit", "Pruning", "SearchResult", "SparseIndex"]
