"""Other forms of embeddings; batches on a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.encoding.inspection import as_sparse
from sparse_encoder.similarity import normalized


def batch_to_device(batch: Mapping[str, Any], target_device: torch.device | str) -> dict[str, Any]:
    """Move the tensors of a batch of features to a device; the batch itself is left alone."""
    return {name: value.to(target_device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def select_max_active_dims(
    embeddings: Tensor | SparseEmbeddings | NDArray[np.floating], max_active_dims: int | None
) -> Tensor | SparseEmbeddings | NDArray[np.floating]:
    """Keep the entries of greatest absolute value of each row.

    Args:
        embeddings: One embedding (V,), or several, (N, V); it is left alone.
        max_active_dims: How many entries are kept; ``None`` for all.

    Returns:
        Embeddings of the same kind, dense ones with zeros in place of what was dropped; a tensor of an array.

    Raises:
        ValueError: If ``max_active_dims`` is not positive.
    """
    if max_active_dims is None:
        return embeddings
    if isinstance(embeddings, np.ndarray):
        embeddings = torch.as_tensor(embeddings)
    if isinstance(embeddings, SparseEmbeddings):
        return embeddings.top_k(max_active_dims)
    if embeddings.layout is not torch.strided:
        return SparseEmbeddings.from_torch(embeddings).top_k(max_active_dims).to_torch(layout=torch.sparse_coo)
    if max_active_dims < 1:
        raise ValueError(f"max_active_dims must be at least 1, got {max_active_dims}")
    kept = embeddings.abs().topk(min(max_active_dims, embeddings.shape[-1]), dim=-1).indices
    return torch.zeros_like(embeddings).scatter(-1, kept, embeddings.gather(-1, kept))


def normalize_embeddings(embeddings: Tensor | SparseEmbeddings) -> Tensor | SparseEmbeddings:
    """Scale embeddings to length 1; one of zeros stays.

    Args:
        embeddings: One embedding (V,), or several, (N, V).

    Returns:
        Embeddings of the same kind.
    """
    if isinstance(embeddings, Tensor) and embeddings.layout is not torch.strided:
        return normalized(as_sparse(embeddings)).to_sparse()
    return normalized(embeddings)


def to_scipy_coo(x: Tensor | SparseEmbeddings) -> sparse.coo_matrix:
    """Return a sparse matrix, (N, V), as scipy's COO matrix."""
    return sparse.coo_matrix(as_sparse(x).to_scipy())


def compute_count_vector(embeddings: Tensor | SparseEmbeddings) -> Tensor:
    """Count for each dimension the rows in which it is active, (V,) int64."""
    rows = as_sparse(embeddings)
    active = rows.col_indices()[rows.values() != 0].long()
    return torch.bincount(active, minlength=rows.shape[-1])
