"""The L1 penalty: how much weight a text has in all; knows one matrix of term weights and nothing else."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sparse_encoder.losses.base import Regularizer, full_precision


class L1Loss(Regularizer):
    r"""Penalise the sum of the term weights of a text, whatever terms they are of; often used for queries.

    .. math:: \frac{1}{B} \sum_i \sum_j |w_{ij}|

    Source: Lassance and Clinchant, 2022, https://arxiv.org/abs/2207.03834.

    Args:
        model: The encoder whose term weights are penalised.
    """

    def compute_loss_from_embeddings(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the penalty of one column, in weight units.

        Args:
            embeddings: Term weights, (B, V); summed up in float32 or wider.
            labels: Not used.

        Returns:
            Scalar tensor.
        """
        return self.mean_over_batch(full_precision(embeddings).abs().sum(dim=1))

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {}

    @property
    def citation(self) -> str:
        """BibTeX entry of the paper."""
        return """
@misc{lassance2022efficiency,
    title={An Efficiency Study for SPLADE Models},
    author={Carlos Lassance and St{\\'e}phane Clinchant},
    year={2022},
    eprint={2207.03834},
    archivePrefix={arXiv},
    primaryClass={cs.IR},
    url={https://arxiv.org/abs/2207.03834},
}
"""
