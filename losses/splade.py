"""A ranking loss plus a penalty on active terms; knows neither what the ranking loss nor what the penalty computes."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.losses.base import EmbeddingLoss, Regularizer, check_not_negative, check_number
from sparse_encoder.losses.checks import check_ranking_loss, check_regularizer
from sparse_encoder.losses.flops import FlopsLoss
from sparse_encoder.losses.sparsity_target import SparsityTarget

logger = logging.getLogger(__name__)


class SpladeLoss(EmbeddingLoss):
    r"""Train for ranking and for sparsity at once.

    .. math:: \text{base} + \lambda_d R_d(\text{documents}) + \lambda_q R_q(\text{queries})

    The first column holds the queries, all others together are the documents. The terms come back by name,
    ``base_loss``, ``document_regularizer_loss`` and ``query_regularizer_loss``, already weighted; the trainer adds
    them. Columns and labels: as the base loss needs them. In evaluation mode and without gradients, a term with a
    target is left out: its weight moves, so sums with it could not be compared between steps.

    Source: Formal et al., 2022, https://arxiv.org/abs/2205.04733.

    Args:
        model: The encoder that is trained.
        loss: Computes the ranking loss from embeddings; any of :mod:`sparse_encoder.losses` but the regularisers.
        document_regularizer_weight: λ_d, not negative; needed unless there is a ``target_document_dims``.
        query_regularizer_weight: λ_q, not negative; ``None`` leaves the queries free, right for encoders whose queries
            cannot grow.
        document_regularizer: R_d; ``None`` is :class:`FlopsLoss`.
        query_regularizer: R_q; ``None`` is :class:`FlopsLoss`.
        document_regularizer_threshold: Of the default R_d.
        query_regularizer_threshold: Of the default R_q. As a ``query_regularizer``, it needs a weight or a target.
        use_document_regularizer_only: All columns are documents: R_d takes them together, and a
            ``query_regularizer_weight`` is dropped with a warning, as in the peer.
        target_document_dims: Active terms that documents come to have on average, in place of λ_d, which then finds its
            own way (:mod:`sparse_encoder.losses.sparsity_target`) and needs no schedule. A penalty only takes terms
            away: what is below its target without one, as where the target of queries takes terms from the documents
            of the same encoder too, stays there.
        target_query_dims: The same of queries, in place of λ_q.

    Raises:
        TypeError: If a weight or a threshold is not a number.
        ValueError: If ``loss`` or a regulariser does not compute from embeddings, a weight is negative or infinite, a
            weight has a target beside it, a target is not above 0 or exceeds the model's dimension, a regulariser of
            queries has no weight, or a threshold is given for one that is not the default (the peer ignores both).
    """

    def __init__(  # house: peer signature
        self,
        model: nn.Module,
        loss: EmbeddingLoss,
        document_regularizer_weight: float | None = None,
        query_regularizer_weight: float | None = None,
        document_regularizer: Regularizer | None = None,
        query_regularizer: Regularizer | None = None,
        document_regularizer_threshold: float | None = None,
        query_regularizer_threshold: float | None = None,
        use_document_regularizer_only: bool = False,
        *,
        target_document_dims: float | None = None,
        target_query_dims: float | None = None,
    ) -> None:
        super().__init__(model)
        check_ranking_loss(loss)
        if use_document_regularizer_only:
            if (
                query_regularizer is not None
                or query_regularizer_threshold is not None
                or target_query_dims is not None
            ):
                raise ValueError("use_document_regularizer_only=True leaves nothing for a query regularizer to judge")
            if query_regularizer_weight is not None:
                logger.warning("query_regularizer_weight is not used with use_document_regularizer_only=True")
            query_regularizer_weight = None
        if document_regularizer_weight is None and target_document_dims is None:
            raise ValueError("SpladeLoss needs a document_regularizer_weight or, in its place, target_document_dims")
        _check_weight(model, "document", document_regularizer_weight, target_document_dims)
        _check_weight(model, "query", query_regularizer_weight, target_query_dims)
        if query_regularizer_weight is None and target_query_dims is None and not use_document_regularizer_only:
            _refuse_unused(query_regularizer=query_regularizer, query_regularizer_threshold=query_regularizer_threshold)
        self.loss = loss
        self.document_regularizer_weight = document_regularizer_weight
        self.query_regularizer_weight = query_regularizer_weight
        self.use_document_regularizer_only = use_document_regularizer_only
        self.document_target = None if target_document_dims is None else SparsityTarget(target_document_dims)
        self.query_target = None if target_query_dims is None else SparsityTarget(target_query_dims)
        self.document_regularizer = _regularizer(
            model, "document_regularizer", document_regularizer, document_regularizer_threshold
        )
        self.query_regularizer = _regularizer(
            model, "query_regularizer", query_regularizer, query_regularizer_threshold
        )

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> dict[str, Tensor]:
        """Compare the columns of one batch and penalise their active terms.

        Args:
            embeddings: Term weights of each column, (B, V) each, the query column first.
            labels: Handed to the base loss.

        Returns:
            The weighted terms, scalars by name; one with a target not in evaluations.

        Raises:
            ValueError: If there is no document column.
        """
        documents = embeddings if self.use_document_regularizer_only else embeddings[1:]
        if not documents:
            name, count = type(self).__name__, len(embeddings)
            raise ValueError(f"{name} needs a query column and document columns, got {count} column(s)")
        base = self.loss.compute_loss_from_embeddings(embeddings, labels)
        losses = dict(base) if isinstance(base, dict) else {"base_loss": base}
        weight, target = self.document_regularizer_weight, self.document_target
        ranking = list(losses.values())
        if self._has_term(weight, target):
            rows = torch.cat(documents)
            penalty = self.document_regularizer.compute_loss_from_embeddings(rows)
            losses["document_regularizer_loss"] = _weighted(penalty, weight, target, rows, ranking)
        weight, target = self.query_regularizer_weight, self.query_target
        if self._has_term(weight, target):
            penalty = self.query_regularizer.compute_loss_from_embeddings(embeddings[0])
            losses["query_regularizer_loss"] = _weighted(penalty, weight, target, embeddings[0], ranking)
        return losses

    def _has_term(self, weight: float | None, target: SparsityTarget | None) -> bool:
        """Return whether a penalty is part of the loss."""
        return weight is not None if target is None else self.training or torch.is_grad_enabled()

    def weights_in_use(self) -> dict[str, float]:
        """Return the weights of the regularisers by name, also those that find their own way; waits for the device."""
        given = {
            "document_regularizer_weight": (self.document_regularizer_weight, self.document_target),
            "query_regularizer_weight": (self.query_regularizer_weight, self.query_target),
        }
        found = {name: weight if target is None else float(target.weight) for name, (weight, target) in given.items()}
        return {name: weight for name, weight in found.items() if weight is not None}

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        config: dict[str, Any] = {"loss": self.loss}  # as above
        for name in ("document_regularizer_weight", "query_regularizer_weight"):
            if getattr(self, name) is not None:
                config[name] = getattr(self, name)
        for kind, target in (("document", self.document_target), ("query", self.query_target)):
            if target is not None:
                config[f"target_{kind}_dims"] = target.target_dims
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


def _regularizer(model: nn.Module, name: str, regularizer: Regularizer | None, threshold: float | None) -> Regularizer:
    """Return the given regulariser, or the FLOPS penalty."""
    if regularizer is None:
        return FlopsLoss(model, threshold=threshold)
    check_regularizer(name, regularizer)
    if threshold is not None:
        raise ValueError(f"a threshold is for the default FlopsLoss, not for {type(regularizer).__name__}")
    return regularizer


def _check_weight(model: nn.Module, kind: str, weight: float | None, target: float | None) -> None:
    """Refuse a weight that is none, one that has a target beside it, and a target that the model cannot reach."""
    if weight is not None and target is not None:
        raise ValueError(f"{kind}_regularizer_weight and target_{kind}_dims exclude each other; give one of them")
    if weight is not None:
        check_not_negative(f"{kind}_regularizer_weight", weight)
    width: int | None = getattr(model, "get_embedding_dimension", lambda: None)()
    if target is not None and width is not None and check_number(f"target_{kind}_dims", target) > width:
        raise ValueError(f"target_{kind}_dims must be <= {width}, the dimension of the model, got {target}")


def _refuse_unused(**settings: object) -> None:
    """Refuse settings of a query regulariser that is not applied."""
    if given := [name for name, value in settings.items() if value is not None]:
        raise ValueError(
            f"{given[0]} has no effect without a weight: give query_regularizer_weight or target_query_dims too, or "
            f"leave {given[0]} out"
        )


def _weighted(
    penalty: Tensor, weight: float | None, target: SparsityTarget | None, rows: Tensor, ranking: list[Tensor]
) -> Tensor:
    """Return the penalty of term weights, (N, V), times a weight that is given or finds its way to a target."""
    if target is not None:
        weighted: Tensor = target(penalty, rows, torch.stack([term.detach() for term in ranking]).sum())
        return weighted
    assert weight is not None
    return penalty * weight
