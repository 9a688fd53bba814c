"""Sparse rows as three numpy arrays, checked once: what goes into an index and what asks it. Knows no postings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparse_encoder.embeddings_arrays import ArrayEmbeddings, Arrays

if TYPE_CHECKING:
    from sparse_encoder.similarity import Embeddings


class Rows(NamedTuple):
    """Rows of positive weights.

    Attributes:
        starts: Start of each row and, last, the number of weights, (N + 1) int64.
        terms: Term of each weight, rising within a row, (Z) int32.
        weights: (Z) float32, all positive and finite.
        dim: Number of terms.
    """

    starts: NDArray[np.int64]
    terms: NDArray[np.int32]
    weights: NDArray[np.float32]
    dim: int

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.starts) - 1


def as_rows(embeddings: Embeddings, what: str) -> Rows:
    """Bring embeddings of any kind to rows of positive float32 weights.

    Unsorted terms are sorted, zeros dropped, also those that are too small for float32; a single embedding counts as
    one row.

    Args:
        embeddings: (N, V) or (V,).
        what: What a row is, for error messages.

    Raises:
        TypeError: If it is no kind of embeddings.
        ValueError: If a weight is negative, NaN, infinite or too large for float32, or the arrays are no CSR matrix.
    """
    arrays = embeddings.arrays if isinstance(embeddings, ArrayEmbeddings) else _arrays_of(embeddings)
    with np.errstate(over="ignore", under="ignore"):
        weights = arrays.values.astype(np.float32, copy=False)
    rows = Rows(arrays.starts, arrays.columns, weights, arrays.dim)
    check_compressed(rows.starts, rows.terms, rows.dim, names=(what, "term"))
    _check_weights(rows, what)
    return _without_zeros(rows)


def _arrays_of(embeddings: Embeddings) -> Arrays:
    """Return the arrays of embeddings that torch holds, or can take over."""
    from torch import Tensor

    from sparse_encoder.embeddings import SparseEmbeddings
    from sparse_encoder.similarity import as_embeddings

    matrix = as_embeddings(embeddings)
    if isinstance(matrix, Tensor):
        matrix = SparseEmbeddings.from_dense(matrix)
    values = matrix.values().cpu()
    numbers = (values.float() if values.element_size() < 4 else values).numpy()
    return Arrays(
        matrix.crow_indices().cpu().numpy(), matrix.col_indices().cpu().numpy(), numbers, int(matrix.shape[-1])
    )


def check_compressed(
    starts: NDArray[np.signedinteger], indices: NDArray[np.int32], limit: int, *, names: tuple[str, str]
) -> None:
    """Refuse arrays that do not list indices below ``limit``, rising, row after row.

    Args:
        starts: Start of each row, (N + 1).
        indices: (Z).
        limit: Indices lie in ``[0, limit)``.
        names: What a row and an index is, for error messages.

    Raises:
        ValueError: Naming the first offender.
    """
    row, index = names
    if len(starts) == 0 or starts[0] != 0 or starts[-1] != len(indices):
        ends = (int(starts[0]), int(starts[-1])) if len(starts) else ()
        raise ValueError(f"{row} starts must go from 0 to {len(indices)}, got {ends}")
    falls = starts[1:] < starts[:-1]
    if falls.any():
        place = int(falls.argmax())
        raise ValueError(f"{row} starts must not fall, {row} {place} goes from {starts[place]} to {starts[place + 1]}")
    if len(indices) == 0:
        return
    lowest, highest = int(indices.min()), int(indices.max())
    if lowest < 0 or highest >= limit:
        raise ValueError(f"each {index} must lie in [0, {limit}), got {lowest if lowest < 0 else highest}")
    rising = indices[1:] > indices[:-1]
    if not rising.all():
        inner = starts[1:-1]
        rising[inner[(inner > 0) & (inner < len(indices))] - 1] = True  # a new row may start anywhere
        if not rising.all():
            place = int(np.flatnonzero(~rising)[0])
            raise ValueError(
                f"each {index} must be there once and rising within a {row}, "
                f"{row} {row_of(starts, place)} has {int(indices[place])} before {int(indices[place + 1])}"
            )


def row_of(starts: NDArray[np.signedinteger], place: int) -> int:
    """Return the row that an entry belongs to."""
    return int(np.searchsorted(starts, place, side="right")) - 1


def _check_weights(rows: Rows, what: str) -> None:
    fine = np.isfinite(rows.weights) & (rows.weights >= 0)
    if not fine.all():
        place = int(np.flatnonzero(~fine)[0])
        raise ValueError(
            f"weights must be finite in float32 and not negative, "
            f"{what} {row_of(rows.starts, place)} has {float(rows.weights[place])} for term {int(rows.terms[place])}"
        )


def _without_zeros(rows: Rows) -> Rows:
    keep = rows.weights > 0
    if keep.all():
        return rows
    kept = np.zeros(len(keep) + 1, dtype=np.int64)
    np.cumsum(keep, out=kept[1:])
    return Rows(kept[rows.starts], rows.terms[keep], rows.weights[keep], rows.dim)
