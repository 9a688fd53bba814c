"""Look into embeddings: how sparse they are, which terms they hold, what two of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.encoding.inputs import check_positive

WeightedTerms = list[tuple[str, float]]
"""Terms and their weights, the heaviest first."""


def as_sparse(embeddings: object) -> SparseEmbeddings:
    """Bring one embedding (V,) or a matrix of them, (N, V), to CSR.

    Raises:
        TypeError: If it is neither a tensor nor :class:`SparseEmbeddings`.
        ValueError: If it has no axis, or more than two.
    """
    if not isinstance(embeddings, (Tensor, SparseEmbeddings)):
        raise TypeError(f"embeddings must be a torch tensor or SparseEmbeddings, got {type(embeddings).__name__}")
    if embeddings.ndim not in (1, 2):
        raise ValueError(f"embeddings must have 1 or 2 axes, got {embeddings.ndim}")
    if isinstance(embeddings, SparseEmbeddings):
        return embeddings
    if embeddings.layout is torch.strided:
        return SparseEmbeddings.from_dense(embeddings)
    return SparseEmbeddings.from_torch(embeddings)


def sparsity(embeddings: Tensor | SparseEmbeddings) -> dict[str, float]:
    """Average the number of active dimensions over the rows.

    Args:
        embeddings: One embedding (V,), or several, (N, V).

    Returns:
        ``active_dims``, the mean number of entries other than 0, and ``sparsity_ratio = 1 - active_dims / V``;
        0 and 1 when there are no rows or no dimensions.

    Raises:
        TypeError: If it is neither a tensor nor :class:`SparseEmbeddings`.
        ValueError: If it has no axis, or more than two.
    """
    rows = as_sparse(embeddings)
    num_rows, dim = rows.crow_indices().numel() - 1, rows.shape[-1]
    if num_rows == 0 or dim == 0:
        return {"active_dims": 0.0, "sparsity_ratio": 1.0}
    active_dims = int(torch.count_nonzero(rows.values())) / num_rows
    return {"active_dims": active_dims, "sparsity_ratio": 1.0 - active_dims / dim}


def intersection(
    embeddings_1: Tensor | SparseEmbeddings, embeddings_2: Tensor | SparseEmbeddings
) -> Tensor | SparseEmbeddings:
    """Multiply one embedding with one or several, entry by entry, and keep what is above 0.

    Args:
        embeddings_1: One embedding, (V,).
        embeddings_2: One embedding (V,), or several, (N, V).

    Returns:
        Shared dimensions, shaped like ``embeddings_2``: a sparse COO tensor if that is a tensor, else
        :class:`SparseEmbeddings`.

    Raises:
        TypeError: If an argument is neither a tensor nor :class:`SparseEmbeddings`.
        ValueError: If the first is not one embedding or the widths differ.
    """
    one, many = as_sparse(embeddings_1), as_sparse(embeddings_2)
    if one.ndim != 1:
        raise ValueError(f"embeddings_1 must be one embedding, (V,), got the shape {tuple(one.shape)}")
    if one.shape[-1] != many.shape[-1]:
        raise ValueError(f"embeddings must have the same width, got {one.shape[-1]} and {many.shape[-1]}")
    columns = many.col_indices()
    products = many.values() * one.to_dense()[columns.long()]
    kept = products > 0
    ends = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])[many.crow_indices()]
    shared = SparseEmbeddings(ends, columns[kept], products[kept], many.shape, validate=False)
    return shared.to_torch(layout=torch.sparse_coo) if isinstance(embeddings_2, Tensor) else shared


def decode(
    embeddings: Tensor | SparseEmbeddings, names: Callable[[list[int]], Sequence[str]], top_k: int | None
) -> WeightedTerms | list[WeightedTerms]:
    """Name the active dimensions, the heaviest first; of equal weights the lower dimension comes first.

    Args:
        embeddings: One embedding (V,), or several, (N, V).
        names: Turns dimensions into terms.
        top_k: Most terms of an embedding; ``None`` for all.

    Returns:
        Terms and weights: a list for one embedding, a list of lists for several.

    Raises:
        TypeError: If it is neither a tensor nor :class:`SparseEmbeddings`.
        ValueError: If it has no axis or more than two, or ``top_k`` is not a positive integer.
    """
    if top_k is not None:
        top_k = check_positive("top_k", top_k)
    rows = as_sparse(embeddings).cpu()
    bounds = rows.crow_indices().tolist()
    columns, values = rows.col_indices(), rows.values()
    decoded = []
    for start, end in zip(bounds[:-1], bounds[1:], strict=True):
        weights = values[start:end]
        order = weights.argsort(descending=True, stable=True)[:top_k]
        terms = names(columns[start:end][order].tolist())
        decoded.append(list(zip(terms, weights[order].tolist(), strict=True)))
    return decoded[0] if rows.ndim == 1 else decoded
