"""Measures BM25 and models on one corpus. Knows nothing of training and prints nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sparse_encoder.cli.docstrings import Corpus
from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation import SparseInformationRetrievalEvaluator
from sparse_encoder.model import SparseEncoder
from sparse_encoder.search import BM25, SparseIndex

Encoder = BM25 | SparseEncoder

BATCH_SIZE = 64
TIMED_QUERIES = 100


@dataclass(frozen=True, slots=True)
class Measured:
    """What came out for one encoder.

    Attributes:
        figures: ``ndcg@10``, ``mrr@10``, ``recall@100``, mean active terms ``query_terms`` and ``document_terms``, and
            ``ms_per_query``, to encode and search one.
        index: Over all documents of the corpus.
    """

    figures: dict[str, float]
    index: SparseIndex


def measure(encoder: Encoder, corpus: Corpus, *, fingerprint: str | None = None) -> Measured:
    """Encode and index all documents, search them for the held-out questions, and time single queries.

    Args:
        encoder: BM25 or a model; dot products are measured.
        corpus: What is searched, and asked.
        fingerprint: Kept in the index.
    """
    documents = encoder.encode_document(corpus.documents, batch_size=BATCH_SIZE, show_progress_bar=True)
    assert isinstance(documents, SparseEmbeddings)  # what both give for a list of texts
    evaluator = SparseInformationRetrievalEvaluator(
        queries={str(number): question.text for number, question in enumerate(corpus.held_out)},
        corpus=dict(zip(corpus.ids, corpus.documents, strict=True)),
        relevant_docs={str(number): {corpus.ids[each.document]} for number, each in enumerate(corpus.held_out)},
        accuracy_at_k=(),
        precision_recall_at_k=(100,),
        map_at_k=(),
        batch_size=BATCH_SIZE,
    )
    metrics = evaluator(encoder, corpus_embeddings=documents)
    index = SparseIndex.build(documents, ids=corpus.ids, fingerprint=fingerprint)
    figures = {
        "ndcg@10": metrics["dot_ndcg@10"],
        "mrr@10": metrics["dot_mrr@10"],
        "recall@100": metrics["dot_recall@100"],
        "query_terms": metrics["query_active_dims"],
        "document_terms": metrics["corpus_active_dims"],
        "ms_per_query": milliseconds_per_query(encoder, index, [question.text for question in corpus.held_out]),
    }
    return Measured(figures, index)


def milliseconds_per_query(encoder: Encoder, index: SparseIndex, queries: Sequence[str]) -> float:
    """Time encoding and searching of queries that come one by one; the median of at most 100."""
    times = []
    for query in queries[: TIMED_QUERIES + 1]:
        started = time.perf_counter()
        index.search(encode_query(encoder, query), top_k=10, fingerprint=index.fingerprint)
        times.append(time.perf_counter() - started)
    times = sorted(times[1:] or times)  # the first one warms up
    return 1000 * times[len(times) // 2]


def encode_query(encoder: Encoder, query: str) -> SparseEmbeddings:
    """Encode one query, (V,)."""
    embedding = encoder.encode_query(query, show_progress_bar=False)
    assert isinstance(embedding, SparseEmbeddings)  # what both give for one text
    return embedding
