"""Rankings of several searches joined into one; knows ids, no scores."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

Id = TypeVar("Id", bound=Hashable)


def reciprocal_rank_fusion(rankings: Sequence[Sequence[Id]], rrf_k: float = 60) -> list[Id]:
    r"""Order the documents of several rankings by the sum of their reciprocal ranks.

    .. math:: \sum_r \frac{1}{k + \text{rank}_r(d)}

    over the rankings that have the document, ranks from 1. Of equal sums the document that comes first in the first
    ranking, then in the second, and so on, is first. A document that is twice in a ranking counts at its last place.

    Source: Cormack, Clarke and Büttcher, 2009, https://doi.org/10.1145/1571941.1572114.

    Args:
        rankings: Ids of documents, best first.
        rrf_k: Softens the weight of the first ranks.

    Raises:
        ValueError: If ``rrf_k`` is negative.
    """
    if not rrf_k >= 0:
        raise ValueError(f"rrf_k must not be negative, got {rrf_k}")
    sums: dict[Id, float] = {}
    for ranking in rankings:
        ranks = {document: rank for rank, document in enumerate(ranking, start=1)}
        for document, rank in ranks.items():
            sums[document] = sums.get(document, 0.0) + 1 / (rrf_k + rank)
    return sorted(sums, key=lambda document: -sums[document])
