"""Look into embeddings without torch: which terms they hold, and how sparse they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import sparse

from sparse_encoder.embeddings_arrays import ArrayEmbeddings, Arrays

WeightedTerms = list[tuple[str, float]]
"""Terms and their weights, the heaviest first."""


def as_rows(embeddings: Any) -> ArrayEmbeddings:  # noqa: ANN401 - whatever holds term weights
    """Bring embeddings to rows of numpy arrays.

    Args:
        embeddings: One embedding (V,), or several, (N, V): rows, arrays, scipy matrices, tensors of torch; or a list of
            single ones.

    Raises:
        TypeError: If it is none of these.
        ValueError: If it has no axis, or more than two, or the widths of a list differ.
    """
    if isinstance(embeddings, ArrayEmbeddings):
        return embeddings
    if hasattr(embeddings, "to_scipy"):  # SparseEmbeddings
        rows = as_rows(embeddings.to_scipy())
        return ArrayEmbeddings(rows.arrays, single=embeddings.ndim == 1)
    if hasattr(embeddings, "tocsr"):  # a matrix of scipy
        matrix = sparse.csr_array(embeddings.tocsr())
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()
        starts, columns = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)
        return ArrayEmbeddings(Arrays(starts, columns, matrix.data, matrix.shape[1]))
    if isinstance(embeddings, (list, tuple)) and embeddings and not isinstance(embeddings[0], (int, float, list)):
        parts = [as_rows(each) for each in embeddings]
        if len({part.arrays.dim for part in parts}) > 1:
            raise ValueError(f"embeddings must have the same width, got {sorted({part.arrays.dim for part in parts})}")
        return ArrayEmbeddings.concatenate(parts, parts[0].arrays.dim)
    if hasattr(embeddings, "layout") and hasattr(embeddings, "detach"):  # a tensor
        dense = embeddings.detach().to_dense().cpu()
        embeddings = (dense if dense.dtype.itemsize > 2 else dense.float()).numpy()
    dense = np.asarray(embeddings)
    if dense.dtype.kind not in "fiu":
        raise TypeError(f"embeddings must be rows, arrays or tensors of numbers, got {type(embeddings).__name__}")
    if dense.ndim not in (1, 2):
        raise ValueError(f"embeddings must have 1 or 2 axes, got {dense.ndim}")
    rows = ArrayEmbeddings.from_dense(np.atleast_2d(dense))
    return ArrayEmbeddings(rows.arrays, single=dense.ndim == 1)


def intersection_of(one: ArrayEmbeddings, many: ArrayEmbeddings) -> ArrayEmbeddings:
    """Multiply one embedding (V,) with each of several, entry by entry, and keep what is above 0.

    Raises:
        ValueError: If the first is not one embedding or the widths differ.
    """
    if one.ndim != 1:
        raise ValueError(f"embeddings_1 must be one embedding, (V,), got the shape {one.shape}")
    if one.shape[-1] != many.shape[-1]:
        raise ValueError(f"embeddings must have the same width, got {one.shape[-1]} and {many.shape[-1]}")
    starts, columns, values, dim = many.arrays
    products = values * one.numpy()[columns]
    kept = products > 0
    ends = np.concatenate([np.zeros(1, dtype=np.int64), kept.cumsum()])[starts]
    return ArrayEmbeddings(Arrays(ends, columns[kept], products[kept], dim), single=many.ndim == 1)


def decode_rows(
    embeddings: Any,  # noqa: ANN401 - ArrayEmbeddings, or what torch has
    names: Callable[[list[int]], Sequence[str]],
    top_k: int | None,
) -> WeightedTerms | list[WeightedTerms]:
    """Name the active dimensions, the heaviest first; of equal weights the lower dimension comes first.

    Args:
        embeddings: One embedding (V,), or several, (N, V); as :func:`as_rows` takes them.
        names: Turns dimensions into terms.
        top_k: Most terms of an embedding; ``None`` for all.
    """
    embeddings = as_rows(embeddings)
    starts, columns, values, _ = embeddings.arrays
    decoded = []
    for begin, end in pairwise(starts.tolist()):
        order = np.argsort(-values[begin:end], kind="stable")[:top_k]
        terms = names(columns[begin:end][order].tolist())
        decoded.append(list(zip(terms, values[begin:end][order].tolist(), strict=True)))
    return decoded[0] if embeddings.ndim == 1 else decoded


def sparsity_of(embeddings: Any) -> dict[str, float]:  # noqa: ANN401 - as decode_rows
    """Average the number of active dimensions over the rows; as :meth:`SparseEncoder.sparsity`.

    Args:
        embeddings: One embedding (V,), or several, (N, V); as :func:`as_rows` takes them.
    """
    embeddings = as_rows(embeddings)
    num_rows, dim = len(embeddings.arrays.starts) - 1, embeddings.arrays.dim
    if num_rows == 0 or dim == 0:
        return {"active_dims": 0.0, "sparsity_ratio": 1.0}
    active_dims = int(np.count_nonzero(embeddings.arrays.values)) / num_rows
    return {"active_dims": active_dims, "sparsity_ratio": 1.0 - active_dims / dim}
