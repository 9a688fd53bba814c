"""The best documents of a corpus for each query, under any similarity; knows vectors and positions, no texts.

Unlike a search, which leaves out documents that share no term with the query, this ranks all documents: so does the
peer, and metrics can only be compared if both do. The order is by falling score, equal scores by position.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation.embedding import extremes
from sparse_encoder.search import SparseIndex
from sparse_encoder.similarity import SimilarityFunction, cos_sim, dot_score

MAX_BLOCK_SCORES = 1 << 22
"""Most scores of queries x documents that are held at once when there is no index."""

ScoreFunction = Callable[[Any, Any], Tensor]  # Any: torch sparse tensors, (N, V) and (M, V)


class Ranking(NamedTuple):
    """The best documents of one query, best first.

    Attributes:
        positions: (k) int64.
        scores: (k) float32.
    """

    positions: NDArray[np.int64]
    scores: NDArray[np.float32]


class ScoreError(ValueError):
    """A score that nothing can be ranked by.

    Args:
        query: Position of the query.
        document: Position of the document.
        score: NaN or an infinity.
    """

    def __init__(self, query: int, document: int, score: float) -> None:
        super().__init__(f"scores must be finite, query {query} and document {document} have {score}")
        self.query, self.document, self.score = query, document, score


class Searcher(NamedTuple):
    """What finds the best documents of every query.

    Attributes:
        rank: Finds that many documents for each query.
        built: The index of the documents as they are, if one is used.
    """

    rank: Callable[[int], list[Ranking]]
    built: SparseIndex | None


EMPTY = Ranking(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))


def rank_all(
    queries: SparseEmbeddings,
    documents: SparseEmbeddings,
    top_k: int,
    function: ScoreFunction,
    name: str | None = None,
) -> list[Ranking]:
    """Find the best documents of every query; arguments as in :func:`searcher`.

    Args:
        queries: (N, V).
        documents: (M, V).
        top_k: Most documents of a ranking.
        function: Scores all rows with all rows.
        name: The model's name of the similarity.
    """
    return searcher(queries, documents, function, name).rank(top_k)


def searcher(
    queries: SparseEmbeddings, documents: SparseEmbeddings, function: ScoreFunction, name: str | None = None
) -> Searcher:
    """Get ready to find the best documents of every query.

    Dot products and cosines of weights that are not negative come from an index, which is built now; anything else is
    scored block by block.

    Args:
        queries: (N, V).
        documents: (M, V).
        function: Scores all rows with all rows: torch sparse tensors (N, V) and (M, V) to (N, M).
        name: The model's name of the similarity, if the function is the model's.

    """
    kind = _indexable(function, name)
    if kind is None or has_negative(queries) or has_negative(documents):
        return Searcher(lambda top_k: _rank_by_blocks(queries, documents, top_k, function), None)
    if kind is SimilarityFunction.COSINE:
        scaled = SparseIndex.build(_normalized(documents))
        return Searcher(partial(_rank_by_index, _normalized(queries), scaled), None)
    index = SparseIndex.build(documents)
    return Searcher(partial(_rank_by_index, queries, index), index)


def has_negative(embeddings: SparseEmbeddings) -> bool:
    """Return whether a weight is below 0."""
    low, _ = extremes(embeddings.values())
    return low < 0


def merge(first: Ranking, second: Ranking, top_k: int) -> Ranking:
    """Join two rankings of different documents."""
    if not len(first.positions):
        return second
    positions = np.concatenate((first.positions, second.positions))
    scores = np.concatenate((first.scores, second.scores))
    order = np.lexsort((positions, -scores))[:top_k]
    return Ranking(positions[order], scores[order])


def _indexable(function: ScoreFunction, name: str | None) -> SimilarityFunction | None:
    """Return which similarity an index can compute in place of the function, if any."""
    if name == SimilarityFunction.DOT.value or function is dot_score:
        return SimilarityFunction.DOT
    if name == SimilarityFunction.COSINE.value or function is cos_sim:
        return SimilarityFunction.COSINE
    return None


def _normalized(embeddings: SparseEmbeddings) -> sparse.csr_array:
    """Scale each row to length 1; a row of zeros stays."""
    matrix = embeddings.cpu().float().to_scipy()
    lengths = np.sqrt(matrix.multiply(matrix).sum(axis=1, dtype=np.float64))
    scaled: sparse.csr_array = sparse.diags_array(1 / np.maximum(lengths, 1e-12)) @ matrix
    return scaled


def _rank_by_index(queries: SparseEmbeddings | sparse.csr_array, index: SparseIndex, top_k: int) -> list[Ranking]:
    length = min(top_k, len(index))
    found = index.search_arrays(queries, top_k)
    rankings = []
    for begin, end in zip(found.offsets, found.offsets[1:], strict=False):
        ranking = Ranking(found.positions[begin:end], found.scores[begin:end])
        rankings.append(_with_rest(ranking, length) if end - begin < length else ranking)
    return rankings


def _with_rest(ranking: Ranking, length: int) -> Ranking:
    """Fill a ranking up with the first documents that are not in it; their score is 0."""
    rest = np.setdiff1d(np.arange(length), ranking.positions)[: length - len(ranking.positions)]
    zeros = np.zeros(len(rest), dtype=np.float32)
    return Ranking(np.concatenate((ranking.positions, rest)), np.concatenate((ranking.scores, zeros)))


def _rank_by_blocks(
    queries: SparseEmbeddings, documents: SparseEmbeddings, top_k: int, function: ScoreFunction
) -> list[Ranking]:
    num_documents = documents.shape[0]
    step = max(1, MAX_BLOCK_SCORES // max(1, num_documents))
    rankings = []
    corpus = documents.to(queries.device).to_torch()
    for start in range(0, queries.shape[0], step):
        block = queries[start : start + step]
        scores = function(block.to_torch(), corpus).float().cpu()
        scores = scores.to_dense() if scores.layout is not torch.strided else scores
        if scores.shape != (len(block), num_documents):
            raise ValueError(
                f"a score function must return scores of the shape {(len(block), num_documents)}, "
                f"got {tuple(scores.shape)}"
            )
        if not bool(scores.isfinite().all()):
            row, document = torch.nonzero(~scores.isfinite())[0].tolist()
            raise ScoreError(start + row, document, scores[row, document].item())
        rankings += [_best(row, min(top_k, num_documents)) for row in scores.numpy()]
    return rankings


def _best(scores: NDArray[np.float32], top_k: int) -> Ranking:
    """Rank all documents of one query."""
    kth_best = np.partition(scores, len(scores) - top_k)[len(scores) - top_k]
    positions = np.flatnonzero(scores >= kth_best)
    order = np.argsort(-scores[positions], kind="stable")[:top_k]
    return Ranking(positions[order], scores[positions[order]])
