"""Pairs in the order of their labels, over all pairs of pairs in linear memory; knows what a score is, not a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.losses.base import EmbeddingLoss
from sparse_encoder.losses.checks import check_function, check_positive, checked_row_labels, exact_columns, name_of
from sparse_encoder.losses.ranked_lists import one_unless_nan
from sparse_encoder.losses.scores import ROW_BY_ROW
from sparse_encoder.similarity import pairwise_cos_sim


class SparseCoSENTLoss(EmbeddingLoss):
    r"""Let pairs with higher labels have higher similarities.

    .. math:: \log \bigl( 1 + \sum_{y_i > y_j} \exp(\text{scale} \cdot (s_j - s_i)) \bigr)

    Columns: (text, text). Labels: how alike they are, one number per row, (B,).

    Source: Huang et al., 2024, https://doi.org/10.1109/TASLP.2024.3402087. Unlike the peer's, this loss also works
    without a regulariser, and leaves the similarity that the model is saved with as it is.

    Args:
        model: The encoder that is trained.
        scale: Multiplies the similarities; the inverse of a temperature.
        similarity_fct: Maps (B, V) and (B, V), row by row, to similarities (B,).

    Raises:
        TypeError: If ``scale`` is not a number.
        ValueError: If it is not above 0 and finite.
    """

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = pairwise_cos_sim,
    ) -> None:
        super().__init__(model)
        check_function("similarity_fct", similarity_fct, ROW_BY_ROW)
        check_positive("scale", scale)
        self.scale = scale
        self.similarity_fct = similarity_fct

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
        return ordered_by_labels(
            self.scale * self.similarity_fct(first, second), checked_row_labels(self, labels, len(first))
        )

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {"scale": self.scale, "similarity_fct": name_of(self.similarity_fct)}

    @property
    def citation(self) -> str:
        """BibTeX entry of the paper."""
        return """
@article{huang2024cosent,
    title={CoSENT: Consistent Sentence Embedding via Similarity Ranking},
    author={Xiang Huang and Hao Peng and Dongcheng Zou and Zhiwei Liu and Jianxin Li and Kay Liu and Jia Wu
        and Jianlin Su and Philip S. Yu},
    journal={IEEE/ACM Transactions on Audio, Speech, and Language Processing},
    year={2024},
    doi={10.1109/TASLP.2024.3402087},
}
"""


def ordered_by_labels(scores: Tensor, labels: Tensor) -> Tensor:
    """Add up, over all pairs in the wrong order, how wrong they are.

    With the labels sorted, the partners i of a row j are those behind its last equal, so one pass from the end has all
    of their sums: O(B log B) time and O(B) memory.

    Args:
        scores: (B,).
        labels: (B,).

    Returns:
        ``log(1 + sum over labels[i] > labels[j] of exp(scores[j] - scores[i]))``, a scalar tensor; NaN if a label is.
    """
    ordered, order = (labels.int() if labels.dtype == torch.bool else labels).sort()
    scores = scores[order]
    higher = torch.searchsorted(ordered, ordered, right=True)  # (B,): where the higher labels of a row begin
    behind = (-scores).flip(0).logcumsumexp(dim=0).flip(0)  # (B,): log of the sum over this row and those behind it
    behind = torch.cat([behind, behind.new_full((1,), -torch.inf)])
    total = torch.cat([scores.new_zeros(1), scores + behind[higher]]).logsumexp(dim=0)
    return total * one_unless_nan(labels)
