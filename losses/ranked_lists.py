"""What losses on ranked lists share: scores beside labels, gains, discounts. Axes: B queries, N documents of each."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from sparse_encoder.losses.checks import checked_columns, checked_labels
from sparse_encoder.losses.scores import Similarity, document_scores

Gain = Literal["exponential", "linear"]
GAINS = ("exponential", "linear")


def scored_list(
    loss: nn.Module,
    embeddings: list[Tensor],
    labels: Tensor | None,
    similarity_fct: Similarity,
    *,
    has_gains: bool = False,
) -> tuple[Tensor, Tensor]:
    """Score the documents of each query.

    Args:
        loss: Whose name errors bear.
        embeddings: Term weights of queries and of two or more documents, (B, V) each.
        labels: Judgements or a teacher's scores of the documents, (B, N).
        similarity_fct: Maps (B, V) and (B, V), row by row, to scores (B,).
        has_gains: Whether labels are worth something, not only in an order: then +inf is refused, or comes back as NaN
            from an accelerator, where nobody waits for labels to be looked at.

    Returns:
        Scores and labels, (B, N) each.

    Raises:
        ValueError: If columns or labels are missing or of another shape, or labels are NaN, or +inf with gains.
    """
    queries, *documents = checked_columns(loss, embeddings, 3, "a query and two or more documents")
    shape = (len(queries), len(documents))
    given = checked_labels(loss, labels, "judgements of the documents", shape, is_bounded=has_gains)
    if has_gains:
        given = given.masked_fill(given == torch.inf, torch.nan) if given.is_floating_point() else given
    scores = document_scores(queries, documents, similarity_fct)
    return scores, given.to(scores.dtype)


def differences(values: Tensor) -> Tensor:
    """Return how much larger each is than each other: [b, i, j] is values[b, i] - values[b, j], (B, N, N)."""
    return values.unsqueeze(2) - values.unsqueeze(1)


def one_unless_nan(labels: Tensor) -> Tensor:
    """Return the factor of a loss that lets NaN among labels through, which comparisons pass over; a scalar tensor."""
    return torch.where(labels.isnan().any(), torch.nan, 1.0)


def check_gain(gain: str) -> None:
    """Check the name of a gain.

    Raises:
        ValueError: If it is not one of :data:`GAINS`.
    """
    if gain not in GAINS:
        raise ValueError(f"unknown gain {gain!r}; choose from {GAINS}")


def gains_of(labels: Tensor, gain: Gain) -> Tensor:
    """Return what a document is worth, (B, N): ``2 ** label - 1``, or the label itself; nothing below 0.

    Where a label is so large that ``2 ** label`` could not be held, all gains of the query are divided by one power of
    2. That changes no nDCG and nothing that is made of it: gains count there as shares of the best sum of gains.
    """
    labels = labels.clamp(min=0)
    if gain == "linear":
        return labels
    most = math.frexp(torch.finfo(labels.dtype).max)[1] // 2  # leaves room for sums
    power = (labels.amax(dim=1, keepdim=True) - most).clamp(min=0).floor()  # 0 for ordinary labels
    return (labels - power).exp2() - (-power).exp2()


def discounts_of(ranks: Tensor) -> Tensor:
    """Return what a rank, 1 for the first, lets a gain count: ``1 / log2(1 + rank)``."""
    return 1 / (1 + ranks).log2()


def ideal_dcg(gains: Tensor) -> Tensor:
    """Return the largest sum of discounted gains that the documents of a query can have, (B, 1)."""
    ranks = torch.arange(1, gains.shape[1] + 1, device=gains.device, dtype=gains.dtype)
    return (gains.sort(dim=1, descending=True).values * discounts_of(ranks)).sum(dim=1, keepdim=True)
