"""A wall in front of the empty embedding; knows one matrix of term weights and nothing else."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sparse_encoder.losses.base import Regularizer, full_precision
from sparse_encoder.losses.checks import check_positive


class AntiZeroLoss(Regularizer):
    r"""Penalise texts that are losing all of their terms; meant to stand beside another penalty.

    .. math:: \Bigl( \frac{1}{B} \sum_i \sum_j |w_{ij}| + \epsilon \Bigr)^{-2}

    With the sum in place of the mean and without the ε this is the penalty of SPLADE's training code. The mean makes it
    one of the whole update, whatever its size; the ε keeps it finite where nothing is active any more.

    Args:
        model: The encoder whose term weights are penalised.
        epsilon: Above 0, in weight units.

    Raises:
        TypeError: If ``epsilon`` is not a number.
        ValueError: If ``epsilon`` is not above 0.
    """

    def __init__(self, model: nn.Module, epsilon: float = 1e-2) -> None:
        super().__init__(model)
        check_positive("epsilon", epsilon)
        self.epsilon = epsilon

    def compute_loss_from_embeddings(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the penalty of one column.

        Args:
            embeddings: Term weights, (B, V); summed up in float32 or wider.
            labels: Not used.

        Returns:
            Scalar tensor.
        """
        weight = self.mean_over_batch(full_precision(embeddings).abs().sum(dim=1))
        return (weight + self.epsilon).pow(-2)

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {"epsilon": self.epsilon}
