"""Adding up postings, term by term: the one loop a search spends its time in. Knows three arrays, no index.

Both ways add in the order of the terms given, in float32. The arrays must have been checked: scipy's routine writes
wherever they tell it to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

Kernel = Callable[
    [
        NDArray[np.int32],
        NDArray[np.int32],
        NDArray[np.float32],
        Sequence[int],
        NDArray[np.float32],
        NDArray[np.float32],
    ],
    None,
]
"""Takes starts (V + 1), documents (P), weights (P), query terms, query weights, and scores (D), which it adds to."""


def accumulate_numpy(
    starts: NDArray[np.int32],
    documents: NDArray[np.int32],
    weights: NDArray[np.float32],
    terms: Sequence[int],
    query_weights: NDArray[np.float32],
    scores: NDArray[np.float32],
) -> None:
    """Add ``query weight * document weight`` to the score of every document of every query term."""
    for term, query_weight in zip(terms, query_weights, strict=True):
        begin, end = starts[term], starts[term + 1]
        np.add.at(scores, documents[begin:end], weights[begin:end] * query_weight)


@cache
def kernel() -> Kernel:
    """Return the fastest way that works here: scipy's ``csc_matvec`` if it is where it has always been, else numpy.

    The routine releases the interpreter's lock, so that threads run side by side. It is not part of scipy's public
    interface, hence the trial.
    """
    try:
        csc_matvec = import_module("scipy.sparse._sparsetools").csc_matvec
    except (ImportError, AttributeError):
        return accumulate_numpy

    def accumulate_scipy(
        starts: NDArray[np.int32],
        documents: NDArray[np.int32],
        weights: NDArray[np.float32],
        terms: Sequence[int],
        query_weights: NDArray[np.float32],
        scores: NDArray[np.float32],
    ) -> None:
        for place, term in enumerate(terms):  # one column of the matrix at a time
            weight = query_weights[place : place + 1]
            csc_matvec(len(scores), 1, starts[term : term + 2], documents, weights, weight, scores)

    return accumulate_scipy if _works(accumulate_scipy) else accumulate_numpy


def _works(accumulate: Kernel) -> bool:
    """Try a kernel on three postings."""
    scores = np.zeros(3, dtype=np.float32)
    arrays = np.array([0, 1, 1, 3], dtype=np.int32), np.array([1, 0, 1], dtype=np.int32)
    weights, query_weights = np.array([1.0, 2.0, 4.0], dtype=np.float32), np.array([3.0, 0.5], dtype=np.float32)
    try:
        accumulate(*arrays, weights, [0, 2], query_weights, scores)
    except (TypeError, ValueError):
        return False
    return scores.tolist() == [1.0, 5.0, 0.0]
