"""nDCG made smooth: a rank is one plus how many others are probably ahead."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

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


class SparseApproxNDCGLoss(EmbeddingLoss):
    r"""Raise a smooth version of nDCG.

    .. math:: 1 - \frac{1}{B'} \sum_b \frac{1}{\text{ideal}_b} \sum_i \frac{\text{gain}(y_{bi})}{\log_2(1 + r_{bi})},
              \quad r_{bi} = 1 + \sum_{j \ne i} \sigma \Bigl( \frac{s_{bj} - s_{bi}}{T} \Bigr)

    over the B' queries that have a document with a gain; 0 if there is none. Columns: (query, document_1, ...,
    document_N). Labels: judgements, 0 for not relevant, (B, N); what is below 0 counts as 0.

    Source: Qin et al., 2010, https://doi.org/10.1007/s10791-009-9124-x.

    Args:
        model: The encoder that is trained.
        similarity_fct: Maps (B, V) and (B, V), row by row, to scores (B,).
        temperature: T; the smaller, the closer to nDCG, and the fewer documents have a slope.
        gain: ``exponential``: ``2 ** label - 1``. ``linear``: the label itself, right for a teacher's scores.

    Raises:
        TypeError: If ``temperature`` is not a number.
        ValueError: If ``temperature`` is not above 0, or ``gain`` is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        similarity_fct: Similarity = pairwise_dot_score,
        *,
        temperature: float = 1.0,
        gain: Gain = "exponential",
    ) -> None:
        super().__init__(model)
        check_function("similarity_fct", similarity_fct, ROW_BY_ROW)
        check_positive("temperature", temperature)
        check_gain(gain)
        self.similarity_fct = similarity_fct
        self.temperature = temperature
        self.gain: Gain = gain

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Judge the order of the documents of each query.

        Args:
            embeddings: Term weights of queries and of two or more documents, (B, V) each.
            labels: Judgements of the documents, (B, N).

        Returns:
            Scalar tensor, between 0 and 1.

        Raises:
            ValueError: If columns or labels are missing or of another shape, or a label is NaN or +inf.
        """
        scores, given = scored_list(self, embeddings, labels, self.similarity_fct, has_gains=True)
        gains = gains_of(given, self.gain)
        ideal = ideal_dcg(gains).squeeze(1)  # (B,)
        ahead = (-differences(scores) / self.temperature).sigmoid().sum(dim=2)  # each is half ahead of itself
        dcg = (gains * discounts_of(ahead + 0.5)).sum(dim=1)
        counts = ideal > 0
        missed = torch.where(counts, 1 - dcg / ideal.masked_fill(~counts, 1.0), 0.0)
        return missed.sum() / counts.sum().clamp(min=1) * one_unless_nan(given)

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {"similarity_fct": name_of(self.similarity_fct), "temperature": self.temperature, "gain": self.gain}

    @property
    def citation(self) -> str:
        """BibTeX entry of the paper."""
        return """
@article{qin2010general,
    title={A General Approximation Framework for Direct Optimization of Information Retrieval Measures},
    author={Tao Qin and Tie-Yan Liu and Hang Li},
    journal={Information Retrieval},
    volume={13},
    year={2010},
    doi={10.1007/s10791-009-9124-x},
}
"""
