"""How losses on a query and its documents score them; knows no labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Similarity = Callable[[Tensor, Tensor], Tensor]
ROW_BY_ROW = "a function of (B, V) and (B, V), such as sparse_encoder.similarity.pairwise_dot_score"
"""What a similarity is where each text is compared with one other, for messages."""
ALL_WITH_ALL = "a function of (A, V) and (B, V), such as sparse_encoder.similarity.dot_score"
"""The same where all are compared with all."""


def document_scores(queries: Tensor, documents: Sequence[Tensor], similarity_fct: Similarity) -> Tensor:
    """Score the documents of each query.

    Args:
        queries: Term weights, (B, V).
        documents: Term weights of each column of documents, (B, V) each.
        similarity_fct: Maps (B, V) and (B, V), row by row, to scores (B,).

    Returns:
        (B, columns).
    """
    return torch.stack([similarity_fct(queries, column) for column in documents], dim=1)
