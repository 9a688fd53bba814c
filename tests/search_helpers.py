"""Small sparse matrices, and search done the slow and certain way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def random_rows(num_rows: int, dim: int, seed: int, density: float = 0.3) -> sparse.csr_array:
    """Make rows of positive float32 weights."""
    random = np.random.default_rng(seed)
    dense = random.random((num_rows, dim), dtype=np.float32) + np.float32(0.01)
    dense[random.random((num_rows, dim)) > density] = 0
    return sparse.csr_array(dense)


def sums_in_term_order(queries: sparse.csr_array, documents: sparse.csr_array) -> NDArray[np.float32]:
    """Score every pair by adding float32 products one term after the other, (N, M)."""
    left, right = queries.toarray().astype(np.float32), documents.toarray().astype(np.float32)
    scores = np.zeros((len(left), len(right)), dtype=np.float32)
    for term in range(left.shape[1]):
        scores += np.outer(left[:, term], right[:, term])
    return scores


def best(scores: NDArray[np.floating], top_k: int) -> list[tuple[int, float]]:
    """Rank the positive scores of one query: falling, equal ones by position."""
    order = sorted(range(len(scores)), key=lambda position: (-scores[position], position))
    return [(position, float(scores[position])) for position in order[:top_k] if scores[position] > 0]
