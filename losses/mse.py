"""Distillation of term weights themselves; knows no teacher, only its embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sparse_encoder.losses.base import EmbeddingLoss
from sparse_encoder.losses.checks import checked_columns, checked_labels


class SparseMSELoss(EmbeddingLoss):
    r"""Bring the term weights of texts to those of a teacher.

    .. math:: \frac{1}{C} \sum_c \frac{1}{BV} \sum_{i,v} (w_{civ} - y_{civ})^2

    Columns: one or more. Labels: the teacher's term weights, (B, V) for every column, or one matrix per column,
    (B, C, V).

    Source: Reimers and Gurevych, 2020, https://arxiv.org/abs/2004.09813. Unlike the peer's, this loss reads labels
    in the same way inside a :class:`SpladeLoss`; there, the peer compares column c with the labels of row c.

    Args:
        model: The encoder that is trained.
    """

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Compare the columns of one batch with the teacher's.

        Args:
            embeddings: Term weights of each column, (B, V) each.
            labels: Term weights of the teacher, (B, V) or (B, C, V).

        Returns:
            Scalar tensor.

        Raises:
            ValueError: If labels are missing or of another shape.
        """
        columns = torch.stack(checked_columns(self, embeddings, 1, "texts with a teacher's embedding"), dim=1)
        rows, count, terms = columns.shape
        given = checked_labels(self, labels, "a teacher's embeddings", (rows, terms), (rows, count, terms))
        if given.dim() == 2:
            given = given.unsqueeze(1).expand_as(columns)
        return functional.mse_loss(columns, given.to(columns.dtype))

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {}

    @property
    def citation(self) -> str:
        """BibTeX entry of the paper."""
        return """
@misc{reimers2020making,
    title={Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation},
    author={Nils Reimers and Iryna Gurevych},
    year={2020},
    eprint={2004.09813},
    archivePrefix={arXiv},
    primaryClass={cs.CL},
    url={https://arxiv.org/abs/2004.09813},
}
"""
