"""A ranking loss plus a penalty on active terms; knows neither what the ranking loss nor what the penalty computes."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.losses.base import EmbeddingLoss, Regularizer, check_not_negative
from sparse_encoder.losses.flops import FlopsLoss

logger = logging.getLogger(__name__)


class SpladeLoss(EmbeddingLoss):
    r"""Train for ranking and for sparsity at once.

    .. math:: \text{base} + \lambda_d R_d(\text{documents}) + \lambda_q R_q(\text{queries})

    The first column holds the queries, all others together are the documents. The terms come back by name,
    ``base_loss``, ``document_regularizer_loss`` and ``query_regularizer_loss``, already weighted; the trainer adds
    them. Columns and labels: as the base loss needs them.

    Source: Formal et al., 2022, https://arxiv.org/abs/2205.04733.

    Args:
        model: The encoder that is trained.
        loss: Computes the ranking loss from embeddings; any of :mod:`sparse_encoder.losses` but the regularisers.
        document_regularizer_weight: λ_d, not negative.
        query_regularizer_weight: λ_q, not negative; ``None`` leaves the queries free, right for encoders whose queries
            cannot grow.
        document_regularizer: R_d; ``None`` is :class:`FlopsLoss`.
        query_regularizer: R_q; ``None`` is :class:`FlopsLoss`.
        document_regularizer_threshold: Of the default R_d.
        query_regularizer_threshold: Of the default R_q.
        use_document_regularizer_only: All columns are documents: R_d takes them together, and a
            ``query_regularizer_weight`` is dropped with a warning, as in the peer.

    Raises:
        TypeError: If a weight or a threshold is not a number.
        ValueError: If ``loss`` does not compute from embeddings, a weight is negative, or a threshold is given for a
            regulariser that is not the default one (the peer ignores it).
    """

    def __init__(  # house: peer signature
        self,
        model: nn.Module,
        loss: EmbeddingLoss,
        document_regularizer_weight: float,
        query_regularizer_weight: float | None = None,
        document_regularizer: Regularizer | None = None,
        query_regularizer: Regularizer | None = None,
        document_regularizer_threshold: float | None = None,
        query_regularizer_threshold: float | None = None,
        use_document_regularizer_only: bool = False,
    ) -> None:
        super().__init__(model)
        if isinstance(loss, Regularizer) or not hasattr(loss, "compute_loss_from_embeddings"):
            raise ValueError(
                "loss must be a ranking loss with compute_loss_from_embeddings(embeddings: list, labels), "
                f"got {type(loss).__name__}"
            )
        check_not_negative("document_regularizer_weight", document_regularizer_weight)
        if use_document_regularizer_only:
            if query_regularizer is not None or query_regularizer_threshold is not None:
                raise ValueError("use_document_regularizer_only=True leaves nothing for a query regularizer to judge")
            if query_regularizer_weight is not None:
                logger.warning("query_regularizer_weight is not used with use_document_regularizer_only=True")
            query_regularizer_weight = None
        if query_regularizer_weight is not None:
            check_not_negative("query_regularizer_weight", query_regularizer_weight)
        self.loss = loss
        self.document_regularizer_weight = document_regularizer_weight
        self.query_regularizer_weight = query_regularizer_weight
        self.use_document_regularizer_only = use_document_regularizer_only
        self.document_regularizer = _regularizer(model, document_regularizer, document_regularizer_threshold)
        self.query_regularizer = _regularizer(model, query_regularizer, query_regularizer_threshold)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> dict[str, Tensor]:
        """Compare the columns of one batch and penalise their active terms.

        Args:
            embeddings: Term weights of each column, (B, V) each, the query column first.
            labels: Handed to the base loss.

        Returns:
            The weighted terms, scalars by name.

        Raises:
            ValueError: If there is no document column.
        """
        documents = embeddings if self.use_document_regularizer_only else embeddings[1:]
        if not documents:
            raise ValueError(f"SpladeLoss needs a query column and document columns, got {len(embeddings)} column(s)")
        base = self.loss.compute_loss_from_embeddings(embeddings, labels)
        losses = dict(base) if isinstance(base, dict) else {"base_loss": base}
        penalty = self.document_regularizer.compute_loss_from_embeddings(torch.cat(documents))
        losses["document_regularizer_loss"] = penalty * self.document_regularizer_weight
        if self.query_regularizer_weight is not None:
            penalty = self.query_regularizer.compute_loss_from_embeddings(embeddings[0])
            losses["query_regularizer_loss"] = penalty * self.query_regularizer_weight
        return losses

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        config: dict[str, Any] = {  # as above
            "loss": self.loss,
            "document_regularizer_weight": self.document_regularizer_weight,
        }
        if self.query_regularizer_weight is not None:
            config["query_regularizer_weight"] = self.query_regularizer_weight
        regularizers = {"document_regularizer": self.document_regularizer, "query_regularizer": self.query_regularizer}
        for name, regularizer in regularizers.items():
            if not isinstance(regularizer, FlopsLoss):
                config[name] = type(regularizer).__name__
            elif regularizer.threshold is not None:
                config[f"{name}_threshold"] = regularizer.threshold
        return config

    @property
    def citation(self) -> str:
        """BibTeX entry of the paper."""
        return """
@misc{formal2022distillation,
    title={From Distillation to Hard Negative Sampling: Making Sparse Neural IR Models More Effective},
    author={Thibault Formal and Carlos Lassance and Benjamin Piwowarski and St{\\'e}phane Clinchant},
    year={2022},
    eprint={2205.04733},
    archivePrefix={arXiv},
    primaryClass={cs.IR},
    url={https://arxiv.org/abs/2205.04733},
}
"""


def _regularizer(model: nn.Module, regularizer: Regularizer | None, threshold: float | None) -> Regularizer:
    """Return the given regulariser, or the FLOPS penalty."""
    if regularizer is None:
        return FlopsLoss(model, threshold=threshold)
    if threshold is not None:
        raise ValueError(f"a threshold is for the default FlopsLoss, not for {type(regularizer).__name__}")
    return regularizer
