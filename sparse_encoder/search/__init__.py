"""Exact search over sparse vectors, and BM25 as one more way to make them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sparse_encoder.search.index import Hit, SearchResult, SparseIndex

if TYPE_CHECKING:
    from sparse_encoder.search.bm25 import BM25
    from sparse_encoder.search.pruning import Pruning

_WITH_TORCH = {"BM25": "bm25", "Pruning": "pruning"}
"""Loaded on first use (PEP 562), so that searching alone does not import torch."""

__all__ = ["BM25", "Hit", "Pruning", "SearchResult", "SparseIndex"]


def __getattr__(name: str) -> object:
    """Import what computes with torch the first time it is asked for."""
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
    globals()[name] = value
    return value
