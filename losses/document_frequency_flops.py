"""FLOPS with an eye on how common a term is in the collection; knows one matrix of term weights at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.losses.base import Regularizer, always, check_number, full_precision
from sparse_encoder.losses.checks import check_integer, check_positive


class DFFlopsLoss(Regularizer):
    r"""Penalise terms as :class:`FlopsLoss` does, but hardly those that few documents of the collection have.

    .. math:: \sum_j \Bigl( \omega_j \tfrac{1}{B} \sum_i |w_{ij}| \Bigr)^2, \qquad
              \omega_j = \frac{1}{1 + \bigl( x_j^{\log_\alpha 2} - 1 \bigr)^\beta}

    where x_j is the share of documents that have term j: ω is 1 where every document has it, and one half at α. Long
    posting lists are what a search spends its time on.

    The shares are those of the documents that go by, one update after the other, averaged with a memory of about
    ``1 / (1 - momentum)`` updates; they are buffers, and so in checkpoints. :meth:`set_document_frequencies` takes
    those of a collection.

    Source: Porco et al., 2025, https://arxiv.org/abs/2505.15070. There, shares are counted on validation documents
    every 100 updates.

    Args:
        model: The encoder whose term weights are penalised.
        alpha: Share of documents at which ω is one half, above 0 and below 1.
        beta: How steep ω rises there.
        momentum: Part of the old shares in the new ones, at least 0, at most 1; at 1 shares stay as they are set.
        num_terms: Width V of embeddings, if the model does not say it by ``get_embedding_dimension()``.

    Raises:
        TypeError: If a setting is not a number, or ``num_terms`` is not an integer.
        ValueError: If a number is out of range, or V is not known.
    """

    begins_update: Callable[[], bool]
    document_frequencies: Tensor
    """Share of documents with each term, (V,)."""
    updates: Tensor

    def __init__(
        self,
        model: nn.Module,
        alpha: float = 0.1,
        beta: float = 10.0,
        *,
        momentum: float = 0.99,
        num_terms: int | None = None,
    ) -> None:
        super().__init__(model)
        if not 0 < check_number("alpha", alpha) < 1:
            raise ValueError(f"alpha must be above 0 and below 1, got {alpha}")
        check_positive("beta", beta)
        if not 0 <= check_number("momentum", momentum) <= 1:
            raise ValueError(f"momentum must be >= 0 and <= 1, got {momentum}")
        self.alpha, self.beta, self.momentum = alpha, beta, momentum
        self.begins_update = always
        if num_terms is None:
            width_of: Callable[[], int | None] = getattr(model, "get_embedding_dimension", lambda: None)
            num_terms = width_of()
        if num_terms is None:
            raise ValueError("DFFlopsLoss needs num_terms for a model that has no get_embedding_dimension()")
        check_integer("num_terms", num_terms)
        self.register_buffer("document_frequencies", torch.zeros(num_terms))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def set_document_frequencies(self, shares: Tensor) -> None:
        """Take the shares of documents that have each term, (V,), from a collection.

        Raises:
            ValueError: If they are not as many as terms, or not between 0 and 1.
        """
        if shares.shape != self.document_frequencies.shape:
            wanted, got = tuple(self.document_frequencies.shape), tuple(shares.shape)
            raise ValueError(f"document frequencies must be of shape {wanted}, got {got}")
        if not ((shares >= 0) & (shares <= 1)).all():
            low, high = (f"{float(bound):g}" for bound in shares.aminmax())
            raise ValueError(f"document frequencies are shares of documents, between 0 and 1, got {low} to {high}")
        self.document_frequencies.copy_(shares)
        self.updates.fill_(1)

    def compute_loss_from_embeddings(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the penalty of one column, in squared weight units.

        Args:
            embeddings: Term weights, (B, V); summed up in float32 or wider.
            labels: Not used.

        Returns:
            Scalar tensor.

        Raises:
            ValueError: If V is not that of the loss.
        """
        if embeddings.shape[1:] != self.document_frequencies.shape:
            num_terms, got = len(self.document_frequencies), tuple(embeddings.shape)
            raise ValueError(f"this DFFlopsLoss counts {num_terms} terms, got embeddings of shape {got}; set num_terms")
        embeddings = full_precision(embeddings)
        present = self.mean_over_batch((embeddings.detach() != 0).float()).detach()  # (V,), of the whole update
        if embeddings.requires_grad and torch.is_grad_enabled() and self.begins_update():
            self._count(present)
        shares = torch.where(self.updates == 0, present, self.document_frequencies)
        return (self.term_weights(shares) * self.mean_over_batch(embeddings.abs())).square().sum()

    def term_weights(self, shares: Tensor) -> Tensor:
        """Return ω of terms, (V,), for the shares of documents that have them, (V,)."""
        power = math.log(2) / math.log(self.alpha)  # negative: a share of 0 gives an infinite base, and an ω of 0
        return 1 / (1 + (shares.clamp(0, 1).pow(power) - 1).clamp(min=0).pow(self.beta))

    @torch.no_grad()
    def _count(self, present: Tensor) -> None:
        """Average the shares of one update in; the first ones stand as they are."""
        mixed = torch.lerp(present, self.document_frequencies, self.momentum)
        self.document_frequencies.copy_(torch.where(self.updates == 0, present, mixed))
        self.updates += 1

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {"alpha": self.alpha, "beta": self.beta, "momentum": self.momentum}

    @property
    def citation(self) -> str:
        """BibTeX entry of the paper."""
        return """
@misc{porco2025alternative,
    title={An Alternative to FLOPS Regularization to Effectively Productionize SPLADE-Doc},
    author={Aldo Porco and Dhruv Mehra and Igor Malioutov and Karthik Radhakrishnan and Moniba Keymanesh
        and Daniel Preo{\\c{t}}iuc-Pietro and Sean MacAvaney and Pengxiang Cheng},
    year={2025},
    eprint={2505.15070},
    archivePrefix={arXiv},
    primaryClass={cs.IR},
    url={https://arxiv.org/abs/2505.15070},
}
"""
