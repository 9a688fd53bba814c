"""The postings of a run of documents: for every term the documents that have it. Knows no ids and no files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sparse_encoder.search.kernel import kernel
from sparse_encoder.search.rows import Rows, check_compressed

MAX_DOCUMENTS = 131_072
"""Documents of a segment: their scores take 512 kB and stay in a core's cache."""
MAX_POSTINGS = 2**31 - 1
"""Postings of a segment: they are numbered in 32 bits."""


class Segment(NamedTuple):
    """Postings by term.

    Attributes:
        starts: Where the postings of each term start and, last, their number, (V + 1) int32.
        documents: Document of each posting, numbered from 0 in the segment and rising within a term, (P) int32.
        weights: Weight of each posting, (P) float32, positive.
        num_documents: Documents of the segment, those without any term included.
    """

    starts: NDArray[np.int32]
    documents: NDArray[np.int32]
    weights: NDArray[np.float32]
    num_documents: int

    def score(self, terms: Sequence[int], query_weights: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
        """Write the dot products of one query with all documents into ``scores``, (num_documents) float32."""
        scores.fill(0)
        kernel()(self.starts, self.documents, self.weights, terms, query_weights, scores)

    def check(self, dim: int) -> None:
        """Refuse arrays that a search could not trust.

        Raises:
            ValueError: If sizes or types are wrong, starts fall, a document is out of range or not rising within a
                term, or a weight is not a positive finite number.
        """
        types = [array.dtype.name for array in (self.starts, self.documents, self.weights)]
        if types != ["int32", "int32", "float32"]:
            raise ValueError(f"postings must be int32, int32 and float32, got {types}")
        if self.starts.shape != (dim + 1,) or self.documents.ndim != 1 or self.documents.shape != self.weights.shape:
            shapes = (self.starts.shape, self.documents.shape, self.weights.shape)
            raise ValueError(f"{dim} terms need {dim + 1} starts and as many documents as weights, got shapes {shapes}")
        check_compressed(self.starts, self.documents, self.num_documents, names=("term", "document"))
        is_right = np.isfinite(self.weights) & (self.weights > 0)
        if not is_right.all():
            raise ValueError(f"weights must be positive and finite, got {self.weights[is_right.argmin()]}")


def build_segments(rows: Rows) -> Iterator[Segment]:
    """Turn rows of documents into segments, in order."""
    first = 0
    while first < len(rows):
        last = min(first + MAX_DOCUMENTS, len(rows))
        room = int(np.searchsorted(rows.starts, rows.starts[first] + MAX_POSTINGS, side="right")) - 1
        last = max(first + 1, min(last, room))
        yield _build(rows, first, last)
        first = last


def _build(rows: Rows, first: int, last: int) -> Segment:
    begin, end = int(rows.starts[first]), int(rows.starts[last])
    starts = (rows.starts[first : last + 1] - begin).astype(np.int32)
    by_document = sparse.csr_array((rows.weights[begin:end], rows.terms[begin:end], starts), (last - first, rows.dim))
    by_term = by_document.tocsc()  # keeps the order of the documents
    starts, documents = (array.astype(np.int32, copy=False) for array in (by_term.indptr, by_term.indices))
    return Segment(starts, documents, by_term.data.astype(np.float32, copy=False), last - first)
