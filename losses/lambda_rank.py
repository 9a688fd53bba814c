"""RankNet with pairs that count by what swapping them would change of nDCG."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_encoder.losses.base import EmbeddingLoss
from sparse_encoder.losses.checks import check_function, check_positive, name_of
from sparse_encoder.losses.ranked_lists import (
    Gain,
    check_gain,
    differences,
    discounts_of,
    gains_of,
    ideal_dcg,
    one_unless_nan,
    scored_list,
)
from sparse_encoder.losses.scores import ROW_BY_ROW, Similarity
from sparse_encoder.similarity import pairwise_dot_score


class SparseLambdaRankLoss(EmbeddingLoss):
    r"""Let higher labels have higher scores, above all where nDCG hangs on it.

    .. math:: \frac{1}{B} \sum_b \sum_{y_{bi} > y_{bj}} |\Delta_{bij}|
              \log \bigl( 1 + e^{-\text{scale} \cdot (s_{bi} - s_{bj})} \bigr)

    where Δ is the change of nDCG if the two documents changed places in the present order, a constant for the gradient.
    Columns: (query, document_1, ..., document_N). Labels: judgements, 0 for not relevant, (B, N); what is below 0
    counts as 0 in nDCG, and a query without a gain teaches nothing.

    Source: Burges, 2010, From RankNet to LambdaRank to LambdaMART, Microsoft Research, MSR-TR-2010-82.

    Args:
        model: The encoder that is trained.
        similarity_fct: Maps (B, V) and (B, V), row by row, to scores (B,).
        scale: Multiplies the scores.
        gain: ``exponential``: ``2 ** label - 1``. ``linear``: the label itself, right for a teacher's scores.

    Raises:
        TypeError: If ``scale`` is not a number.
        ValueError: If ``scale`` is not above 0, or ``gain`` is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        similarity_fct: Similarity = pairwise_dot_score,
        *,
        scale: float = 1.0,
        gain: Gain = "exponential",
    ) -> None:
        super().__init__(model)
        check_function("similarity_fct", similarity_fct, ROW_BY_ROW)
        check_positive("scale", scale)
        check_gain(gain)
        self.similarity_fct = similarity_fct
        self.scale = scale
        self.gain: Gain = gain

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Compare the documents of each query.

        Args:
            embeddings: Term weights of queries and of two or more documents, (B, V) each.
            labels: Judgements of the documents, (B, N).

        Returns:
            Scalar tensor.

        Raises:
            ValueError: If columns or labels are missing or of another shape, or a label is NaN or +inf.
        """
        scores, given = scored_list(self, embeddings, labels, self.similarity_fct, has_gains=True)
        weights = self._changes_of_ndcg(scores.detach(), given).masked_fill(differences(given) <= 0, 0.0)
        wrong = functional.softplus(-self.scale * differences(scores))  # (B, N, N)
        return (weights * wrong).sum(dim=(1, 2)).mean() * one_unless_nan(given)

    def _changes_of_ndcg(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return what swapping two documents would change of nDCG, (B, N, N)."""
        gains = gains_of(labels, self.gain)
        ideal = ideal_dcg(gains)
        ranks = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1).to(scores.dtype) + 1
        change = differences(gains).abs() * differences(discounts_of(ranks)).abs()
        return torch.where(ideal.unsqueeze(2) > 0, change / ideal.unsqueeze(2), 0.0)

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {"similarity_fct": name_of(self.similarity_fct), "scale": self.scale, "gain": self.gain}

    @property
    def citation(self) -> str:
        """BibTeX entry of the paper."""
        return """
@techreport{burges2010ranknet,
    title={From RankNet to LambdaRank to LambdaMART: An Overview},
    author={Christopher J.C. Burges},
    year={2010},
    institution={Microsoft Research},
    number={MSR-TR-2010-82},
}
"""
