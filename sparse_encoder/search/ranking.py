"""The best documents of every query, segment by segment; knows no ids and no files.

Documents are ordered by falling score, equal scores by position. The order does not depend on how the work is cut up.
Nothing of the size queries x documents is held: a thread needs the scores of one query for one segment.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparse_encoder.search.rows import Rows
from sparse_encoder.search.segment import Segment

BLOCKS = 64
"""How many scores stand behind one of the maxima that bound the k-th best score."""
POSTINGS_PER_THREAD = 4_000_000
"""Work (about two milliseconds) below which another thread costs more than it brings."""


class Ranked(NamedTuple):
    """The best documents of one query, best first.

    Attributes:
        positions: (k) int64.
        scores: (k) float32, all positive.
    """

    positions: NDArray[np.int64]
    scores: NDArray[np.float32]


NOTHING = Ranked(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))


class _Part(NamedTuple):
    """A segment and the position of its first document."""

    first: int
    segment: Segment


def rank(segments: Sequence[Segment], queries: Rows, top_k: int, num_threads: int | None = None) -> list[Ranked]:
    """Find the ``top_k`` best documents of every query; documents with no term of the query are never among them.

    Args:
        segments: Postings of all documents, in order.
        queries: As many terms as the segments have.
        top_k: At least 1.
        num_threads: How many threads may run; ``None``: as many as there are cores and the work is worth.
    """
    firsts = accumulate((segment.num_documents for segment in segments), initial=0)
    parts = [_Part(first, segment) for first, segment in zip(firsts, segments, strict=False)]
    threads = _worthwhile_threads(segments, queries) if num_threads is None else num_threads
    if threads == 1 or not parts or not len(queries):
        return _rank_block(parts, queries, range(len(queries)), top_k)
    # Many queries are shared out among the threads; for few ones the segments are.
    blocks = _cut(len(queries), min(len(queries), 4 * threads) if len(queries) >= threads else 1)
    groups = _cut(len(parts), 1 if len(queries) >= threads else min(len(parts), threads))
    with ThreadPoolExecutor(threads) as pool:
        found = list(
            pool.map(
                lambda task: _rank_block(parts[task[1].start : task[1].stop], queries, task[0], top_k),
                product(blocks, groups),
            )
        )
    rankings = []
    for start in range(0, len(found), len(groups)):
        rankings += [_merge_all(rivals, top_k) for rivals in zip(*found[start : start + len(groups)], strict=True)]
    return rankings


def _cut(length: int, pieces: int) -> list[range]:
    """Cut ``range(length)`` into pieces of nearly one size."""
    return [range(start, stop) for start, stop in pairwise(length * piece // pieces for piece in range(pieces + 1))]


def _worthwhile_threads(segments: Sequence[Segment], queries: Rows) -> int:
    postings = sum(
        int((segment.starts[queries.terms + 1] - segment.starts[queries.terms]).sum(dtype=np.int64))
        for segment in segments
    )
    return max(1, min(os.cpu_count() or 1, postings // POSTINGS_PER_THREAD))


def _rank_block(parts: Sequence[_Part], queries: Rows, block: range, top_k: int) -> list[Ranked]:
    """Rank the documents of some segments for some queries."""
    asked = []
    for query in block:
        begin, end = queries.starts[query], queries.starts[query + 1]
        asked.append((queries.terms[begin:end].tolist(), queries.weights[begin:end]))
    best = [NOTHING] * len(asked)
    for first, segment in parts:
        scores = np.empty(segment.num_documents, dtype=np.float32)
        for number, (terms, weights) in enumerate(asked):
            segment.score(terms, weights, scores)
            floor = float(best[number].scores[-1]) if len(best[number].scores) == top_k else 0.0
            places = candidates(scores, top_k, floor)
            if len(places):
                best[number] = _merge(best[number], Ranked(places + first, scores[places]), top_k)
    return best


def candidates(scores: NDArray[np.float32], top_k: int, floor: float) -> NDArray[np.int64]:
    """Return, rising, the positions of all scores above ``floor`` that can be among the ``top_k`` best.

    The k-th largest of the maxima of disjoint blocks is a lower bound of the k-th largest score.
    """
    bound = 0.0
    width = len(scores) // BLOCKS
    if top_k <= width:
        maxima = scores[: width * BLOCKS].reshape(BLOCKS, width).max(axis=0)  # strided blocks: one fast pass
        bound = float(np.partition(maxima, width - top_k)[width - top_k])
    return np.flatnonzero(scores >= bound) if bound > floor else np.flatnonzero(scores > floor)


def _merge(best: Ranked, rival: Ranked, top_k: int) -> Ranked:
    """Join a ranking with documents that come after all of its own, given in order of position."""
    positions = np.concatenate((best.positions, rival.positions))
    scores = np.concatenate((best.scores, rival.scores))
    if len(scores) > 2 * top_k:  # sorting them all would take longer than finding the worst that stays
        keep = scores >= np.partition(scores, len(scores) - top_k)[len(scores) - top_k]
        positions, scores = positions[keep], scores[keep]
    order = np.argsort(-scores, kind="stable")[:top_k]
    return Ranked(positions[order], scores[order])


def _merge_all(rankings: Sequence[Ranked], top_k: int) -> Ranked:
    """Join rankings of successive groups of segments."""
    positions = np.concatenate([ranking.positions for ranking in rankings])
    scores = np.concatenate([ranking.scores for ranking in rankings])
    order = np.argsort(-scores, kind="stable")[:top_k]
    return Ranked(positions[order], scores[order])
