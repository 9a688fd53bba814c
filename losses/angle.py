"""CoSENT on angles in the complex plane, whose slope does not vanish where a cosine is near 1."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from sparse_encoder.losses.base import EmbeddingLoss
from sparse_encoder.losses.checks import checked_row_labels, exact_columns
from sparse_encoder.losses.cosent import ordered_by_labels


def pairwise_angle_sim(x: Tensor, y: Tensor) -> Tensor:
    r"""Return the angle similarity of each row of ``x`` with the same row of ``y``.

    With rows of length 1, whose first half is the real part and whose second half is the imaginary one,

    .. math:: \Bigl| \sum_j x_j y_j + \sum_{j \le V/2} (x_{j + V/2} y_j - x_j y_{j + V/2}) \Bigr|

    Source: Li and Li, 2023, https://arxiv.org/abs/2309.12871.

    Args:
        x: (B, V); an odd V is filled up with a column of zeros.
        y: (B, V).

    Returns:
        Similarities, (B,).
    """
    if x.shape[1] % 2:
        x, y = functional.pad(x, (0, 1)), functional.pad(y, (0, 1))
    x, y = functional.normalize(x, dim=1), functional.normalize(y, dim=1)
    (x_real, x_imaginary), (y_real, y_imaginary) = x.chunk(2, dim=1), y.chunk(2, dim=1)
    turned = x_imaginary * y_real - x_real * y_imaginary  # (B, V / 2)
    return ((x * y).sum(dim=1) + turned.sum(dim=1)).abs()


class SparseAnglELoss(EmbeddingLoss):
    r"""Let pairs with higher labels be at higher angle similarities, :func:`pairwise_angle_sim`.

    .. math:: \log \bigl( 1 + \sum_{y_i > y_j} \exp(\text{scale} \cdot (s_j - s_i)) \bigr)

    Columns: (text, text). Labels: how alike they are, one number per row, (B,).

    Source: Li and Li, 2023, https://arxiv.org/abs/2309.12871. Unlike the peer's, this loss also works without a
    regulariser, and leaves the similarity that the model is saved with as it is.

    Args:
        model: The encoder that is trained.
        scale: Multiplies the similarities; the inverse of a temperature.
    """

    def __init__(self, model: nn.Module, scale: float = 20.0) -> None:
        super().__init__(model)
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
