"""The FLOPS penalty: how many multiplications a search costs; knows one matrix of term weights and nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.losses.base import Regularizer, check_not_negative, full_precision


class FlopsLoss(Regularizer):
    r"""Penalise terms that many texts of a batch activate.

    .. math:: \sum_j \bigl( \tfrac{1}{B} \sum_i |w_{ij}| \bigr)^2

    Source: Paria et al., 2020, https://arxiv.org/abs/2004.05665; the threshold: Xu et al., 2025,
    https://arxiv.org/abs/2504.14839. The peer leaves out the absolute value, which matters for negative weights only,
    and averages over the rows of one process and micro-batch, where a trainer of ours takes those of the whole update.

    Args:
        model: The encoder whose term weights are penalised.
        threshold: A text with this many active terms or fewer counts as empty; ``None`` keeps every text.

    Raises:
        TypeError: If ``threshold`` is not a number.
        ValueError: If it is negative.
    """

    def __init__(self, model: nn.Module, threshold: float | None = None) -> None:
        super().__init__(model)
        if threshold is not None:
            check_not_negative("threshold", threshold)
        self.threshold = threshold

    def compute_loss_from_embeddings(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the penalty of one column, in squared weight units.

        Args:
            embeddings: Term weights, (B, V); summed up in float32 or wider.
            labels: Not used.

        Returns:
            Scalar tensor.
        """
        embeddings = full_precision(embeddings)
        if self.threshold is not None:
            active = torch.count_nonzero(embeddings, dim=1)  # (B,)
            embeddings = embeddings * (active > self.threshold).unsqueeze(1)
        return self.mean_over_batch(embeddings.abs()).square().sum()

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {"threshold": self.threshold}

    @property
    def citation(self) -> str:
        """BibTeX entry of the paper."""
        return """
@misc{paria2020minimizing,
    title={Minimizing FLOPs to Learn Efficient Sparse Representations},
    author={Biswajit Paria and Chih-Kuan Yeh and Ian E. H. Yen and Ning Xu and Pradeep Ravikumar
        and Barnab{\\'a}s P{\\'o}czos},
    year={2020},
    eprint={2004.05665},
    archivePrefix={arXiv},
    primaryClass={cs.LG},
    url={https://arxiv.org/abs/2004.05665},
}
"""
