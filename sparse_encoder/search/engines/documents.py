"""Sparse rows as the engines take them: weights by key, lines of a bulk request. Knows no network."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.search.rows import Rows, as_rows, row_of
from sparse_encoder.similarity import Embeddings, as_embeddings

SMALLEST = float(np.finfo(np.float32).tiny)
"""Lucene stores positive normal numbers only."""
LARGEST_QUERY_WEIGHT = 64.0
"""Lucene's limit for the factor of a clause."""
MAX_ID_BYTES = 512
"""The engines' limit for an id."""


class Document(NamedTuple):
    """One document of a bulk request.

    Attributes:
        id: Of the document.
        lines: What to do with it, and the document, as JSON.
    """

    id: str
    lines: bytes


def checked_rows(embeddings: Embeddings, what: str, *, largest: float = float("inf")) -> Rows:
    """Bring embeddings to rows of weights that the engines keep.

    Args:
        embeddings: (N, V) or (V,).
        what: What a row is, for error messages.
        largest: No weight may be greater.

    Raises:
        TypeError: If it is no kind of embeddings.
        ValueError: If a weight is NaN, infinite, negative, zero, too small or too large, naming row and term.
    """
    matrix = as_embeddings(embeddings)
    if isinstance(matrix, Tensor):
        matrix = SparseEmbeddings.from_dense(matrix)
    rows = as_rows(matrix, what)
    weights = matrix.values().detach().cpu().double().numpy()
    for wrong, rule in ((weights < SMALLEST, f"at least {SMALLEST:.4g}"), (weights > largest, f"at most {largest:g}")):
        if wrong.any():
            place = int(np.flatnonzero(wrong)[0])
            row, term = row_of(matrix.crow_indices().cpu().numpy(), place), int(matrix.col_indices()[place])
            raise ValueError(f"weights must be {rule}, {what} {row} has {weights[place]} for term {term}")
    return rows


def check_ids(ids: Sequence[object], num_documents: int) -> None:
    """Refuse ids that an engine would refuse, cut or overwrite.

    Raises:
        TypeError: If an id is no text.
        ValueError: If an id is empty, too long, no Unicode or there twice, or their number is wrong.
    """
    if len(ids) != num_documents:
        raise ValueError(f"there must be one id for each of the {num_documents} documents, got {len(ids)}")
    for position, name in enumerate(ids):
        if not isinstance(name, str):
            raise TypeError(f"ids must be texts, document {position} has {name!r} ({type(name).__name__})")
        if not 1 <= len(name.encode()) <= MAX_ID_BYTES:
            raise ValueError(f"ids must have 1 to {MAX_ID_BYTES} bytes, document {position} has {len(name.encode())}")
    if len(set(ids)) < len(ids):
        twice, count = Counter(ids).most_common(1)[0]
        raise ValueError(f"ids must be unique, {twice!r} is there {count} times")


def weights_by_key(rows: Rows, prefix: str) -> Iterator[dict[str, float]]:
    """Yield the weights of each row by the number of the term, which no two terms share as they may a cleaned name."""
    for row in range(len(rows)):
        part = slice(rows.starts[row], rows.starts[row + 1])
        pairs = zip(rows.terms[part].tolist(), rows.weights[part].tolist(), strict=True)
        yield {f"{prefix}{term}": weight for term, weight in pairs}


def batches(rows: Rows, ids: Sequence[str], *, field: str, prefix: str, max_bytes: int) -> Iterator[list[Document]]:
    """Yield the documents in order, as many at a time as ``max_bytes`` hold, and at least one."""
    batch: list[Document] = []
    size = 0
    for name, weights in zip(ids, weights_by_key(rows, prefix), strict=True):
        action, source = {"index": {"_id": name}}, {field: weights} if weights else {}
        document = Document(name, f"{json.dumps(action)}\n{json.dumps(source)}\n".encode())
        if batch and size + len(document.lines) > max_bytes:
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document.lines)
    if batch:
        yield batch
