"""SparseIndex: the documents with the largest dot products, exactly. Knows vectors and ids, no texts and no model."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparse_encoder.checkpoint import IndexCorruptError
from sparse_encoder.search.arrays import MANIFEST, ArrayFolder, pack_strings, unpack_strings
from sparse_encoder.search.ranking import NOTHING, Ranked, rank
from sparse_encoder.search.rows import as_rows
from sparse_encoder.search.segment import Segment, build_segments

if TYPE_CHECKING:
    from sparse_encoder.similarity import Embeddings

_FOLDER = ArrayFolder("sparse-encoder search index", 1)


class Hit(NamedTuple):
    """A document that was found.

    Attributes:
        id: Of the document.
        score: Its dot product with the query.
    """

    id: str
    score: float


class SearchResult(NamedTuple):
    """The hits of several queries, one query after the other.

    Attributes:
        positions: Position of each document in the index, (H) int64.
        scores: (H) float32.
        offsets: Where the hits of each query start and, last, their number, (N + 1) int64.
    """

    positions: NDArray[np.int64]
    scores: NDArray[np.float32]
    offsets: NDArray[np.int64]


class SparseIndex:
    """Find the documents whose vectors have the largest dot product with a query's.

    The answer is exact: products are added in float32, in the order of the terms, and every document that shares a
    term with the query takes part. Documents are ordered by falling score, equal scores by position; documents that
    share no term are never returned. Neither the number of threads nor what else is asked at the same time changes a
    bit of the answer. Make one with :meth:`build` or :meth:`load`.

    Args:
        segments: Checked postings, in order.
        ids: One for each document.
        dim: Number of terms.
        fingerprint: What the vectors were made by, ``SparseEncoder.fingerprint``; searches must then name it too.
    """

    def __init__(self, segments: Sequence[Segment], ids: Sequence[str], dim: int, fingerprint: str | None) -> None:
        self._segments = tuple(segments)
        self._ids = tuple(ids)
        self._dim = dim
        self._fingerprint = fingerprint

    @classmethod
    def build(
        cls, embeddings: Embeddings, ids: Sequence[str] | None = None, *, fingerprint: str | None = None
    ) -> SparseIndex:
        """Index documents.

        Args:
            embeddings: Term weights, (N, V): :class:`SparseEmbeddings`, or scipy or torch matrices. Terms may be
                unsorted, zeros are dropped, float64 is rounded to float32.
            ids: One different text for each document; ``None`` numbers them.
            fingerprint: Names what made the vectors: ``model.fingerprint`` of a :class:`SparseEncoder` or
                :class:`BM25`. Every search must then name the same.

        Raises:
            TypeError: If an id is not a text.
            ValueError: If an id is there twice, their number is not N, or a weight is negative, NaN, infinite or too
                large for float32.
        """
        rows = as_rows(embeddings, "document")
        names = list(map(str, range(len(rows)))) if ids is None else list(ids)
        if ids is not None:
            _check_ids(names, len(rows))
        return cls(list(build_segments(rows)), names, rows.dim, fingerprint)

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self._ids)

    def __repr__(self) -> str:
        """Name the size."""
        return f"SparseIndex({len(self)} documents, {self.dim} terms, {self.num_postings} postings)"

    @property
    def dim(self) -> int:
        """Number of terms."""
        return self._dim

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the documents by position."""
        return self._ids

    @property
    def fingerprint(self) -> str | None:
        """What the vectors were made by, if it was said."""
        return self._fingerprint

    @property
    def num_postings(self) -> int:
        """Number of weights in the index."""
        return sum(len(segment.documents) for segment in self._segments)

    @property
    def document_frequencies(self) -> NDArray[np.int64]:
        """How many documents have each term, (V)."""
        counts = np.zeros(self._dim, dtype=np.int64)
        for segment in self._segments:
            counts += np.diff(segment.starts)
        return counts

    def search(
        self,
        queries: Embeddings,
        top_k: int = 10,
        *,
        fingerprint: str | None = None,
        num_threads: int | None = None,
    ) -> list[list[Hit]]:
        """Find the best documents of every query.

        Args:
            queries: Term weights, (N, V), or (V,) for one query.
            top_k: Most hits of a query; fewer if fewer documents share a term with it.
            fingerprint: What the queries were made by; it must be what the index was built with, and is required if
                the index was built with one.
            num_threads: How many threads may run; ``None``: as many as there are cores and the work is worth.

        Returns:
            The hits of each query, best first.

        Raises:
            TypeError: If ``top_k`` or ``num_threads`` is no integer.
            ValueError: If ``top_k`` is negative, ``num_threads`` below 1, a weight is negative or not finite, or
                dimension or fingerprint differ from the index's or the fingerprint is missing.
        """
        rankings = self._rank(queries, top_k, fingerprint, num_threads)
        return [
            [Hit(self._ids[place], score) for place, score in zip(found.tolist(), scores.tolist(), strict=True)]
            for found, scores in rankings
        ]

    def search_arrays(
        self,
        queries: Embeddings,
        top_k: int = 10,
        *,
        fingerprint: str | None = None,
        num_threads: int | None = None,
    ) -> SearchResult:
        """Do the same as :meth:`search` and return arrays, which suits many queries."""
        rankings = self._rank(queries, top_k, fingerprint, num_threads)
        offsets = np.zeros(len(rankings) + 1, dtype=np.int64)
        np.cumsum([len(ranking.scores) for ranking in rankings], out=offsets[1:])
        return SearchResult(
            np.concatenate([NOTHING.positions, *(ranking.positions for ranking in rankings)]),
            np.concatenate([NOTHING.scores, *(ranking.scores for ranking in rankings)]),
            offsets,
        )

    def _rank(self, queries: Embeddings, top_k: int, fingerprint: str | None, num_threads: int | None) -> list[Ranked]:
        _check_count("top_k", top_k, 0)
        if num_threads is not None:
            _check_count("num_threads", num_threads, 1)
        if fingerprint is None and self.fingerprint is not None:
            raise ValueError(
                "this index was built with a fingerprint: pass fingerprint= to the search, that of the model which "
                f"made the queries (model.fingerprint); the documents were made by {self.fingerprint!r}"
            )
        if fingerprint != self.fingerprint:
            raise ValueError(
                f"the queries were made by {fingerprint!r}, the documents by {self.fingerprint!r}; "
                "encode both with one model"
            )
        rows = as_rows(queries, "query")
        if rows.dim != self.dim:
            raise ValueError(
                f"queries must have the {self.dim} terms of the index, got {rows.dim}; "
                "if the model's vocabulary was resized, build the index again"
            )
        if top_k == 0:
            return [NOTHING] * len(rows)
        return rank(self._segments, rows, min(top_k, max(1, len(self))), num_threads)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the index; whatever happens, the folder then holds this index or the one it held before.

        Args:
            folder: Made if it does not exist.
        """
        settings = {
            "dim": self.dim,
            "fingerprint": self.fingerprint,
            "segments": [segment.num_documents for segment in self._segments],
        }
        _FOLDER.write(Path(folder), settings, self._files())

    def _files(self) -> Iterator[Mapping[str, NDArray[Any]]]:
        yield pack_strings(self._ids)
        for segment in self._segments:
            yield {"starts": segment.starts, "documents": segment.documents, "weights": segment.weights}

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, memory_map: bool = True) -> SparseIndex:
        """Open an index that was saved, after checking every byte and every number of it.

        Args:
            folder: Where :meth:`save` wrote to.
            memory_map: Leave the postings on the disk, from where they are read as searches need them. The files must
                then not be changed while the index is in use: cutting one short would end the process.

        Raises:
            FileNotFoundError: If there is no index.
            IndexCorruptError: If the index is damaged, or was written by a newer version of this library.
        """
        folder = Path(folder)
        settings, files = _FOLDER.read(folder, memory_map=memory_map)
        try:
            return cls._from_files(settings, list(files))
        except IndexCorruptError:
            raise
        except ValueError as reason:
            raise IndexCorruptError(str(reason), path=folder / MANIFEST, hint="Build the index again") from reason

    @classmethod
    def _from_files(cls, settings: Mapping[str, Any], files: Sequence[Mapping[str, NDArray[Any]]]) -> SparseIndex:
        """Put an index together, trusting nothing."""
        if sorted(settings) != ["dim", "fingerprint", "segments"]:
            raise ValueError(f"settings must be dim, fingerprint and segments, got {sorted(settings)}")
        dim, fingerprint, sizes = settings["dim"], settings["fingerprint"], settings["segments"]
        if not isinstance(fingerprint, str | None) or not isinstance(sizes, list):
            raise ValueError(f"the fingerprint must be a text and segments a list, got {fingerprint!r} and {sizes!r}")
        if any(type(size) is not int or size < 1 for size in sizes) or type(dim) is not int or dim < 0:
            raise ValueError(f"dim and the sizes of segments must be integers, got {dim!r} and {sizes!r}")
        if len(files) != len(sizes) + 1:
            raise ValueError(f"{len(sizes)} segments need {len(sizes) + 1} files, got {len(files)}")
        ids = unpack_strings(files[0])
        _check_ids(ids, sum(sizes))
        segments = []
        for size, arrays in zip(sizes, files[1:], strict=True):
            if sorted(arrays) != ["documents", "starts", "weights"]:
                raise ValueError(f"a segment has documents, starts and weights, got {sorted(arrays)}")
            segments.append(Segment(arrays["starts"], arrays["documents"], arrays["weights"], size))
            segments[-1].check(dim)
        return cls(segments, ids, dim, fingerprint)


def _check_ids(ids: Sequence[object], num_documents: int) -> None:
    """Refuse ids that are no texts, not unique or not as many as documents."""
    if len(ids) != num_documents:
        raise ValueError(f"there must be one id for each of the {num_documents} documents, got {len(ids)}")
    for position, name in enumerate(ids):
        if not isinstance(name, str):
            raise TypeError(f"ids must be texts, document {position} has {name!r} ({type(name).__name__})")
    if len(set(ids)) < len(ids):
        name, count = Counter(ids).most_common(1)[0]
        raise ValueError(f"ids must be unique, {name!r} is there {count} times")


def _check_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
