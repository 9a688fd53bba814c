"""A direction for each term of a vocabulary, nearer to each other for terms that come in the same texts.

Knows rows of term ids, no words and no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import svds
from torch import Tensor


def term_directions(rows: Sequence[Sequence[int]], *, num_terms: int, size: int, seed: int) -> Tensor:
    """Draw random directions and add to each, in equal parts, what the term means by latent semantic analysis.

    The random half keeps terms apart: in ``size`` dimensions the cosine of two such directions is about
    ``size ** -0.5``. The other half brings terms together that texts have in common, so that a term also gives a
    little weight to its relatives. Terms that come in no text stay random.

    Source: Deerwester et al., 1990, https://doi.org/10.1002/(SICI)1097-4571(199009)41:6%3C391::AID-ASI1%3E3.0.CO;2-9.

    Args:
        rows: Ids of the terms of each text, as often as they come.
        num_terms: V.
        size: Of a direction, D.
        seed: Of the draws.

    Returns:
        Rows of length 1, (V, D).
    """
    generator = np.random.default_rng(seed)
    directions = _unit(generator.standard_normal((num_terms, size)))
    matrix = _weights(rows, num_terms)
    rank = min(size, min(matrix.shape) - 1)
    if rank > 0:
        _, lengths, terms = svds(matrix, k=rank, v0=generator.standard_normal(min(matrix.shape)))
        rotation = np.linalg.qr(generator.standard_normal((size, size)))[0][:rank]  # spreads them over all dimensions
        directions = _unit(directions + _unit(terms.T * np.sqrt(lengths)) @ rotation)
    return torch.tensor(directions, dtype=torch.float32)


def _weights(rows: Sequence[Sequence[int]], num_terms: int) -> csr_array:
    """Return (1 + ln count) * idf for the terms of each text, in rows of length 1, (N, V)."""
    counts = [Counter(row) for row in rows]
    texts = np.repeat(np.arange(len(rows)), [len(count) for count in counts])
    terms = np.array([term for count in counts for term in count], dtype=np.int64)
    values = 1 + np.log(np.array([number for count in counts for number in count.values()], dtype=np.float64))
    having = np.bincount(terms, minlength=num_terms)
    matrix = csr_array((values * np.log((len(rows) + 1) / (having + 1))[terms], (texts, terms)), (len(rows), num_terms))
    lengths = np.sqrt((matrix * matrix).sum(axis=1))
    return csr_array(diags_array(1 / np.maximum(lengths, 1e-9)) @ matrix)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale rows to length 1; rows of zeros stay."""
    scaled: NDArray[np.float64] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return scaled
