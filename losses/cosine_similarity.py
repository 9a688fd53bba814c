"""Regression of the cosine of two texts; knows two columns and one number per row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.losses.base import EmbeddingLoss
from sparse_encoder.losses.checks import check_function, checked_row_labels, exact_columns


class SparseCosineSimilarityLoss(EmbeddingLoss):
    r"""Bring the cosine of two texts to a number.

    .. math:: \text{loss}\bigl( T(\cos(a_i, b_i)), y_i \bigr)

    Columns: (text, text). Labels: one number per row, (B,). Unlike the peer's, this loss also works without a
    regulariser, leaves the similarity that the model is saved with as it is, and keeps the precision of labels: the
    peer rounds them to float32.

    Args:
        model: The encoder that is trained.
        loss_fct: Compares (B,) with labels (B,); ``None`` is :class:`torch.nn.MSELoss`.
        cos_score_transformation: T, applied to the cosines, (B,); ``None`` leaves them as they are.

    Raises:
        ValueError: If one of both is something else, such as a name.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fct: nn.Module | None = None,
        cos_score_transformation: nn.Module | None = None,
    ) -> None:
        super().__init__(model)
        for name, function in {"loss_fct": loss_fct, "cos_score_transformation": cos_score_transformation}.items():
            if function is not None:
                check_function(name, function, "a module of torch.nn, or None")
        self.loss_fct = nn.MSELoss() if loss_fct is None else loss_fct
        self.cos_score_transformation = nn.Identity() if cos_score_transformation is None else cos_score_transformation

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Compare the columns of one batch.

        Args:
            embeddings: Term weights of both texts, (B, V) each.
            labels: One number per row, (B,).

        Returns:
            Scalar tensor.

        Raises:
            ValueError: If there are not two columns, or not one label per row.
        """
        first, second = exact_columns(self, embeddings, 2, "two texts that are alike or not")
        given = checked_row_labels(self, labels, len(first))
        cosines = self.cos_score_transformation(torch.cosine_similarity(first, second))
        value: Tensor = self.loss_fct(cosines, given.to(cosines.dtype))
        return value

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        parts = {"loss_fct": self.loss_fct, "cos_score_transformation": self.cos_score_transformation}
        return {name: f"{type(part).__module__}.{type(part).__qualname__}" for name, part in parts.items()}
