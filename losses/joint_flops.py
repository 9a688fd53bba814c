"""What queries and documents cost together: the expected multiplications of one query with one document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.losses.base import EmbeddingLoss, mean_of_rows
from sparse_encoder.losses.checks import checked_columns


class JointFlopsLoss(EmbeddingLoss):
    r"""Penalise terms that both many queries and many documents activate.

    .. math:: \sum_j \Bigl( \tfrac{1}{B} \sum_i |q_{ij}| \Bigr) \Bigl( \tfrac{1}{N} \sum_i |d_{ij}| \Bigr)

    A term that only documents have costs a search nothing. Stands beside a ranking loss in a
    :class:`WeightedSumLoss`. The means are those of the whole update, as of a :class:`Regularizer`.

    Columns: (query, document, ...); all documents are taken together. Labels: none.

    Source: Paria et al., 2020, https://arxiv.org/abs/2004.05665, for two encoders.

    Args:
        model: The encoder whose term weights are penalised.
    """

    mean_over_batch: Callable[[Tensor], Tensor]

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.mean_over_batch = mean_of_rows

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the penalty of queries and documents, in squared weight units.

        Args:
            embeddings: Term weights of queries and documents, (B, V) each.
            labels: Not used.

        Returns:
            Scalar tensor.

        Raises:
            ValueError: If there is no document column.
        """
        queries, *documents = checked_columns(self, embeddings, 2, "queries and documents")
        common = self.mean_over_batch(queries.abs()) * self.mean_over_batch(torch.cat(documents).abs())  # (V,)
        return common.sum()

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {}
