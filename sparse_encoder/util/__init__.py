"""Small things that scripts import: similarities, top-k search over embeddings, other forms of embeddings, logging.

They are loaded on first use (PEP 562): some of them need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparse_encoder.similarity import (
        cos_sim,
        dot_score,
        euclidean_sim,
        manhattan_sim,
        pairwise_angle_sim,
        pairwise_cos_sim,
        pairwise_dot_score,
        pairwise_euclidean_sim,
        pairwise_manhattan_sim,
    )
    from sparse_encoder.similarity import cos_sim as pytorch_cos_sim
    from sparse_encoder.similarity_names import SimilarityFunction
    from sparse_encoder.util.dataset import resolve_ids
    from sparse_encoder.util.environment import is_datasets_available, is_training_available
    from sparse_encoder.util.logging import LoggingHandler
    from sparse_encoder.util.retrieval import semantic_search
    from sparse_encoder.util.tensor import (
        batch_to_device,
        compute_count_vector,
        normalize_embeddings,
        select_max_active_dims,
        to_scipy_coo,
    )

_HOMES = {
    "LoggingHandler": "sparse_encoder.util.logging",
    "SimilarityFunction": "sparse_encoder.similarity_names",
    "batch_to_device": "sparse_encoder.util.tensor",
    "compute_count_vector": "sparse_encoder.util.tensor",
    "cos_sim": "sparse_encoder.similarity",
    "dot_score": "sparse_encoder.similarity",
    "euclidean_sim": "sparse_encoder.similarity",
    "is_datasets_available": "sparse_encoder.util.environment",
    "is_training_available": "sparse_encoder.util.environment",
    "manhattan_sim": "sparse_encoder.similarity",
    "normalize_embeddings": "sparse_encoder.util.tensor",
    "pairwise_angle_sim": "sparse_encoder.similarity",
    "pairwise_cos_sim": "sparse_encoder.similarity",
    "pairwise_dot_score": "sparse_encoder.similarity",
    "pairwise_euclidean_sim": "sparse_encoder.similarity",
    "pairwise_manhattan_sim": "sparse_encoder.similarity",
    "pytorch_cos_sim": "sparse_encoder.similarity",
    "resolve_ids": "sparse_encoder.util.dataset",
    "select_max_active_dims": "sparse_encoder.util.tensor",
    "semantic_search": "sparse_encoder.util.retrieval",
    "to_scipy_coo": "sparse_encoder.util.tensor",
}

__all__ = [
    "LoggingHandler",
    "SimilarityFunction",
    "batch_to_device",
    "compute_count_vector",
    "cos_sim",
    "dot_score",
    "euclidean_sim",
    "is_datasets_available",
    "is_training_available",
    "manhattan_sim",
    "normalize_embeddings",
    "pairwise_angle_sim",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
    "pytorch_cos_sim",
    "resolve_ids",
    "select_max_active_dims",
    "semantic_search",
    "to_scipy_coo",
]


def __getattr__(name: str) -> object:
    """Import a name from its home the first time it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; choose from {__all__}")
    own = "cos_sim" if name == "pytorch_cos_sim" else name  # its older name
    value: object = getattr(import_module(_HOMES[name]), own)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the names, loaded or not."""
    return sorted({*globals(), *_HOMES})
