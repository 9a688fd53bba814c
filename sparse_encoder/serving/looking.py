"""Look into embeddings without torch: which terms they hold, and how sparse they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from sparse_encoder.embeddings_arrays import ArrayEmbeddings

WeightedTerms = list[tuple[str, float]]
"""Terms and their weights, the heaviest first."""


def decode_rows(
    embeddings: Any,  # noqa: ANN401 - ArrayEmbeddings, or what torch has
    names: Callable[[list[int]], Sequence[str]],
    top_k: int | None,
) -> WeightedTerms | list[WeightedTerms]:
    """Name the active dimensions, the heaviest first; of equal weights the lower dimension comes first.

    Args:
        embeddings: One embedding (V,), or several, (N, V); tensors need torch.
        names: Turns dimensions into terms.
        top_k: Most terms of an embedding; ``None`` for all.
    """
    if not isinstance(embeddings, ArrayEmbeddings):
        from sparse_encoder.encoding.inspection import decode

        return decode(embeddings, names, top_k)
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
        embeddings: One embedding (V,), or several, (N, V); tensors need torch.
    """
    if not isinstance(embeddings, ArrayEmbeddings):
        from sparse_encoder.encoding.inspection import sparsity

        return sparsity(embeddings)
    num_rows, dim = len(embeddings.arrays.starts) - 1, embeddings.arrays.dim
    if num_rows == 0 or dim == 0:
        return {"active_dims": 0.0, "sparsity_ratio": 1.0}
    active_dims = int(np.count_nonzero(embeddings.arrays.values)) / num_rows
    return {"active_dims": active_dims, "sparsity_ratio": 1.0 - active_dims / dim}
