"""Top-k search over embeddings, and other forms of them; batches on a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from scipy import sparse
from torch import Tensor

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.encoding.inspection import as_sparse
from sparse_encoder.similarity import Embeddings, as_matrix, cos_sim, normalized


def batch_to_device(batch: Mapping[str, Any], target_device: torch.device | str) -> dict[str, Any]:
    """Move the tensors of a batch of features to a device; the batch itself is left alone."""
    return {name: value.to(target_device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def select_max_active_dims(
    embeddings: Tensor | SparseEmbeddings, max_active_dims: int | None
) -> Tensor | SparseEmbeddings:
    """Keep the entries of greatest absolute value of each row.

    Args:
        embeddings: One embedding (V,), or several, (N, V); it is left alone.
        max_active_dims: How many entries are kept; ``None`` for all.

    Returns:
        Embeddings of the same kind, dense ones with zeros in place of what was dropped.

    Raises:
        ValueError: If ``max_active_dims`` is not positive.
    """
    if max_active_dims is None:
        return embeddings
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


def semantic_search(
    query_embeddings: Embeddings,
    corpus_embeddings: Embeddings,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500_000,
    top_k: int = 10,
    score_function: Callable[[Embeddings, Embeddings], Tensor] = cos_sim,
) -> list[list[dict[str, int | float]]]:
    """Find the best rows of a corpus for each query by comparing all with all.

    The default compares by cosine, as in sentence-transformers; a SparseEncoder's own is ``model.similarity``. For a
    corpus of more than some ten thousand texts :class:`SparseIndex` is the faster way.

    Args:
        query_embeddings: Queries, (N, V).
        corpus_embeddings: Documents, (M, V).
        query_chunk_size: Queries compared at a time.
        corpus_chunk_size: Documents compared at a time.
        top_k: Most hits of a query.
        score_function: Gives the scores of all pairs, (N, M).

    Returns:
        For each query ``{"corpus_id": row, "score": score}``, the best first; of equal scores the lower row first.
    """
    queries, corpus = as_matrix(query_embeddings), as_matrix(corpus_embeddings)
    found: list[list[dict[str, int | float]]] = []
    for start in range(0, queries.shape[0], query_chunk_size):
        block = queries[start : start + query_chunk_size]
        scores = torch.zeros(block.shape[0], 0, device=block.device)
        rows = torch.zeros(block.shape[0], 0, dtype=torch.int64, device=block.device)
        for first in range(0, corpus.shape[0], corpus_chunk_size):
            new = score_function(block, corpus[first : first + corpus_chunk_size])
            numbers = torch.arange(first, first + new.shape[1], device=new.device).expand_as(new)
            scores, rows = torch.cat([scores, new], dim=1), torch.cat([rows, numbers], dim=1)
            order = scores.argsort(dim=1, descending=True, stable=True)[:, :top_k]
            scores, rows = scores.gather(1, order), rows.gather(1, order)
        found += [
            [{"corpus_id": row, "score": score} for row, score in zip(*pair, strict=True)]
            for pair in zip(rows.tolist(), scores.tolist(), strict=True)
        ]
    return found
