"""Documents of a query in the order of their labels, pair by pair; knows labels and scores only."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from sparse_encoder.losses.base import EmbeddingLoss
from sparse_encoder.losses.checks import check_function, check_positive, name_of
from sparse_encoder.losses.ranked_lists import differences, one_unless_nan, scored_list
from sparse_encoder.losses.scores import ROW_BY_ROW, Similarity
from sparse_encoder.similarity import pairwise_dot_score


class SparseRankNetLoss(EmbeddingLoss):
    r"""Let the document with the higher label have the higher score, for every pair of documents of a query.

    .. math:: \frac{1}{|P|} \sum_{(b,i,j) \in P} \log \bigl( 1 + e^{-\text{scale} \cdot (s_{bi} - s_{bj})} \bigr),
              \quad P = \{ y_{bi} > y_{bj} \}

    0 where there is no such pair. Columns: (query, document_1, ..., document_N). Labels: judgements or a teacher's
    scores, of which only the order counts, (B, N).

    Source: Burges et al., 2005, https://doi.org/10.1145/1102351.1102363.

    Args:
        model: The encoder that is trained.
        similarity_fct: Maps (B, V) and (B, V), row by row, to scores (B,).
        scale: Multiplies the scores.

    Raises:
        TypeError: If ``scale`` is not a number.
        ValueError: If ``scale`` is not above 0.
    """

    def __init__(
        self, model: nn.Module, similarity_fct: Similarity = pairwise_dot_score, *, scale: float = 1.0
    ) -> None:
        super().__init__(model)
        check_function("similarity_fct", similarity_fct, ROW_BY_ROW)
        check_positive("scale", scale)
        self.similarity_fct = similarity_fct
        self.scale = scale

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Compare the documents of each query.

        Args:
            embeddings: Term weights of queries and of two or more documents, (B, V) each.
            labels: Of the documents, (B, N).

        Returns:
            Scalar tensor.

        Raises:
            ValueError: If columns or labels are missing or of another shape.
        """
        scores, given = scored_list(self, embeddings, labels, self.similarity_fct)
        is_pair = differences(given) > 0  # (B, N, N)
        wrong = functional.softplus(-self.scale * differences(scores)).masked_fill(~is_pair, 0.0)
        return wrong.sum() / is_pair.sum().clamp(min=1) * one_unless_nan(given)

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {"similarity_fct": name_of(self.similarity_fct), "scale": self.scale}

    @property
    def citation(self) -> str:
        """BibTeX entry of the paper."""
        return """
@inproceedings{burges2005learning,
    title={Learning to Rank using Gradient Descent},
    author={Chris Burges and Tal Shaked and Erin Renshaw and Ari Lazier and Matt Deeds and Nicole Hamilton
        and Greg Hullender},
    booktitle={Proceedings of the 22nd International Conference on Machine Learning},
    year={2005},
    doi={10.1145/1102351.1102363},
}
"""
