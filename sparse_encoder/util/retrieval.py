"""Top-k search over embeddings that are in memory: all queries with all documents."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparse_encoder.similarity import Embeddings, as_embeddings, as_matrix, cos_sim


def semantic_search(
    query_embeddings: Embeddings,
    corpus_embeddings: Embeddings,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500_000,
    top_k: int = 10,
    score_function: Callable[[Embeddings, Embeddings], Tensor] = cos_sim,
) -> list[list[dict[str, int | float]]]:
    """Find the best rows of a corpus for each query by comparing all with all.

    The default compares by cosine, as in sentence-transformers; a SparseEncoder's own is ``model.similarity``. For a
    corpus of more than some ten thousand texts :class:`SparseIndex` is the faster way.

    Args:
        query_embeddings: Queries, (N, V).
        corpus_embeddings: Documents, (M, V); there may be none, in any form.
        query_chunk_size: Queries compared at a time.
        corpus_chunk_size: Documents compared at a time.
        top_k: Most hits of a query.
        score_function: Gives the scores of all pairs, (N, M).

    Returns:
        For each query ``{"corpus_id": row, "score": score}``, the best first; of equal scores the lower row first.
    """
    queries, corpus = as_matrix(query_embeddings), as_embeddings(corpus_embeddings)
    if not corpus.numel():
        return [[] for _ in range(queries.shape[0])]
    corpus = as_matrix(corpus)
    found: list[list[dict[str, int | float]]] = []
    for start in range(0, queries.shape[0], query_chunk_size):
        block = queries[start : start + query_chunk_size]
        scores = torch.zeros(block.shape[0], 0, device=block.device)
        rows = torch.zeros(block.shape[0], 0, dtype=torch.int64, device=block.device)
        for first in range(0, corpus.shape[0], corpus_chunk_size):
            new = score_function(block, corpus[first : first + corpus_chunk_size])
            numbers = torch.arange(first, first + new.shape[1], device=new.device).expand_as(new)
            scores, rows = torch.cat([scores, new], dim=1), torch.cat([rows, numbers], dim=1)
            order = scores.argsort(dim=1, descending=True, stable=True)[:, :top_k]
            scores, rows = scores.gather(1, order), rows.gather(1, order)
        found += [
            [{"corpus_id": row, "score": score} for row, score in zip(*pair, strict=True)]
            for pair in zip(rows.tolist(), scores.tolist(), strict=True)
        ]
    return found
