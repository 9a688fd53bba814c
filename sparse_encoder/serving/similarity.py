"""Similarities of rows by numpy and scipy, with the formulas of :mod:`sparse_encoder.similarity`.

Axes: N and M rows, V columns. A distance is returned negative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sparse_encoder.embeddings_arrays import ArrayEmbeddings
from sparse_encoder.serving.looking import as_rows
from sparse_encoder.similarity_names import SimilarityFunction

Matrix = NDArray[np.float32]
Rows = ArrayEmbeddings | NDArray[Any] | sparse.csr_array | Sequence[object]
"""What is compared: one embedding (V,), a matrix (N, V), or a list of embeddings; Any: a floating type."""


def _matrix(rows: Rows) -> sparse.csr_array:
    """Return rows in float64, (N, V)."""
    return as_rows(rows).to_scipy().astype(np.float64)


def _squares(rows: sparse.csr_array) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.asarray(rows.multiply(rows).sum(axis=1), dtype=np.float64)
    return total


def _scaled(rows: sparse.csr_array) -> sparse.csr_array:
    lengths = np.sqrt(_squares(rows))
    return sparse.csr_array(rows.multiply((1 / np.where(lengths == 0, 1, lengths))[:, None]))


def _dot(a: sparse.csr_array, b: sparse.csr_array) -> NDArray[np.float64]:
    product: NDArray[np.float64] = (a @ b.T).toarray()
    return product


def _cosine(a: sparse.csr_array, b: sparse.csr_array) -> NDArray[np.float64]:
    return _dot(_scaled(a), _scaled(b))


def _euclidean(a: sparse.csr_array, b: sparse.csr_array) -> NDArray[np.float64]:
    squares = _squares(a)[:, None] + _squares(b) - 2 * _dot(a, b)
    distances: NDArray[np.float64] = -np.sqrt(np.maximum(squares, 0))
    return distances


def _manhattan(a: sparse.csr_array, b: sparse.csr_array) -> NDArray[np.float64]:
    columns = b.toarray()
    return -np.stack([np.abs(row - columns).sum(axis=1) for row in a.toarray()])


_FUNCTIONS: dict[SimilarityFunction, Callable[[sparse.csr_array, sparse.csr_array], NDArray[np.float64]]] = {
    SimilarityFunction.COSINE: _cosine,
    SimilarityFunction.DOT_PRODUCT: _dot,
    SimilarityFunction.EUCLIDEAN: _euclidean,
    SimilarityFunction.MANHATTAN: _manhattan,
}


def compare_all(name: str, a: Rows, b: Rows) -> Matrix:
    """Compare every row of one collection with every row of another, (N, M).

    Raises:
        ValueError: If the widths differ or the name is unknown.
    """
    rows, columns = _matrix(a), _matrix(b)
    _check_widths(rows, columns)
    return _FUNCTIONS[SimilarityFunction(name)](rows, columns).astype(np.float32)


def compare_pairs(name: str, a: Rows, b: Rows) -> Matrix:
    """Compare each row of one collection with the same row of another, (N,).

    Raises:
        ValueError: If widths or numbers of rows differ, or the name is unknown.
    """
    rows, columns = _matrix(a), _matrix(b)
    _check_widths(rows, columns)
    if rows.shape[0] != columns.shape[0]:
        raise ValueError(f"both must have the same number of rows, got {rows.shape[0]} and {columns.shape[0]}")
    compare = _FUNCTIONS[SimilarityFunction(name)]
    pairs = [compare(rows[[row]], columns[[row]])[0, 0] for row in range(rows.shape[0])]
    return np.array(pairs, dtype=np.float32)


def in_kind(found: Matrix, *given: Rows) -> Any:  # noqa: ANN401 - an array, or a tensor of torch
    """Return what was found as a tensor, if tensors of torch were compared."""
    first = [each[0] if isinstance(each, (list, tuple)) and each else each for each in given]
    if not any(not isinstance(each, ArrayEmbeddings) and hasattr(each, "detach") for each in first):
        return found
    return import_module("torch").from_numpy(found)


def _check_widths(a: sparse.csr_array, b: sparse.csr_array) -> None:
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"embeddings must have the same width, got {a.shape[1]} and {b.shape[1]}")
