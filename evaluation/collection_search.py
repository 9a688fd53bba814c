"""Searches an encoded collection by an index: the run, and what a search costs. Knows no model and no metric."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation.active_terms import ActiveTerms
from sparse_encoder.evaluation.encoded_collection import EncodedCollection
from sparse_encoder.evaluation.trec_files import Run
from sparse_encoder.search import SparseIndex

DEPTH = 1000
"""Documents of a ranking."""
TIMED_QUERIES = 100
TIMED_DEPTH = 10
_ID_BYTES = 4
_WEIGHT_BYTES = 4
_FACTOR_BYTES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchCost:
    """What decides how fast a search is and how much room it needs."""

    query_terms: float
    """Mean active terms of a query."""
    document_terms: float
    """Mean active terms of a document."""
    avg_flops: float
    """Multiplications per query and document."""
    postings_per_query: float
    """Postings that an exact search of one query goes through, on average; those of a document with the query's own id
    too, also where it is then left out of the ranking."""
    num_postings: int
    """Postings of the index."""
    index_megabytes: float
    """Of all postings: 4 bytes for the document and 4, or 1 of 8-bit weights, for the weight; starts included, and
    4 bytes for the factor of each document whose row of 8-bit weights is scaled to length 1."""
    search_ms_per_query: float
    """Median time to search for the 10 best documents of one query at a time, by one thread; encoding not included."""


def search_collection(
    index: SparseIndex, queries: SparseEmbeddings, encoded: EncodedCollection, *, top_k: int = DEPTH
) -> Run:
    """Rank the documents for every query.

    Args:
        index: Of the documents.
        queries: (number of judged queries, V).
        encoded: Says the ids, and whether a document with the query's own id is skipped.
        top_k: Length of a ranking at most; documents that share no term with the query are not in it.
    """
    skip = encoded.collection.skip_own_id
    found = index.search_arrays(queries, top_k + 1 if skip else top_k)
    positions, scores, offsets = found.positions.tolist(), found.scores.tolist(), found.offsets.tolist()
    run: Run = {}
    for number, query in enumerate(encoded.query_ids):
        begin, end = offsets[number], offsets[number + 1]
        hits = (
            (index.ids[position], score)
            for position, score in zip(positions[begin:end], scores[begin:end], strict=True)
        )
        kept = [(name, score) for name, score in hits if not (skip and name == query)]
        run[query] = dict(kept[:top_k])
    return run


def search_cost(
    index: SparseIndex,
    queries: SparseEmbeddings,
    documents: SparseEmbeddings,
    *,
    eight_bits: bool = False,
    scaled: bool = False,
) -> SearchCost:
    """Measure what searches cost.

    Args:
        index: Of the documents.
        queries: (N, V), at least one.
        documents: (M, V).
        eight_bits: Whether weights need one byte; the index of this library holds them in four.
        scaled: Whether each document has a factor beside its weights of 8 bits.
    """
    asked, held = ActiveTerms(), ActiveTerms()
    asked.add(queries)
    held.add(documents)
    size = index.num_postings * (_ID_BYTES + (1 if eight_bits else _WEIGHT_BYTES)) + _ID_BYTES * (index.dim + 1)
    size += _FACTOR_BYTES * len(documents) if eight_bits and scaled else 0
    return SearchCost(
        query_terms=asked.active_dims,
        document_terms=held.active_dims,
        avg_flops=asked.flops(held),
        postings_per_query=asked.flops(held) * held.num_rows,
        num_postings=index.num_postings,
        index_megabytes=size / 1e6,
        search_ms_per_query=_milliseconds(index, queries),
    )


def _milliseconds(index: SparseIndex, queries: SparseEmbeddings) -> float:
    times = []
    for number in range(min(len(queries), TIMED_QUERIES + 1)):
        query = queries[number : number + 1]
        started = time.perf_counter()
        index.search_arrays(query, TIMED_DEPTH, num_threads=1)
        times.append(time.perf_counter() - started)
    return 1000 * median(times[1:] or times)  # the first one warms up
