"""CoSENT on angles in the complex plane, whose slope does not vanish where a cosine is near 1."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sparse_encoder.losses.base import EmbeddingLoss
from sparse_encoder.losses.checks import check_positive, checked_row_labels, exact_columns
from sparse_encoder.losses.cosent import ordered_by_labels
from sparse_encoder.similarity import pairwise_angle_sim


class SparseAnglELoss(EmbeddingLoss):
    r"""Let pairs with higher labels have higher angle similarities.

    With s of :func:`sparse_encoder.similarity.pairwise_angle_sim`,

    .. math:: \log \bigl( 1 + \sum_{y_i > y_j} \exp(\text{scale} \cdot (s_j - s_i)) \bigr)

    Columns: (text, text). Labels: how alike they are, one number per row, (B,).

    Source: Li and Li, 2023, https://arxiv.org/abs/2309.12871. Unlike the peer's, this loss also works without a
    regulariser, and leaves the similarity that the model is saved with as it is.

    Args:
        model: The encoder that is trained.
        scale: Multiplies the similarities; the inverse of a temperature.

    Raises:
        TypeError: If ``scale`` is not a number.
        ValueError: If it is not above 0 and finite.
    """

    def __init__(self, model: nn.Module, scale: float = 20.0) -> None:
        super().__init__(model)
        check_positive("scale", scale)
        self.scale = scale

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
        return ordered_by_labels(self.scale * pairwise_angle_sim(first, second), given)

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {"scale": self.scale, "similarity_fct": pairwise_angle_sim.__name__}

    @property
    def citation(self) -> str:
        """BibTeX entry of the paper."""
        return """
@misc{li2023angle,
    title={AnglE-optimized Text Embeddings},
    author={Xianming Li and Jing Li},
    year={2023},
    eprint={2309.12871},
    archivePrefix={arXiv},
    primaryClass={cs.CL},
    url={https://arxiv.org/abs/2309.12871},
}
"""
