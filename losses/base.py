"""The two shapes a training objective can have; knows nothing of datasets, optimisers or what the model is made of."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

LossValue = Tensor | dict[str, Tensor]  # a loss made of losses returns its terms by name


def full_precision(weights: Tensor) -> Tensor:
    """Return 16-bit floats as float32 and anything wider as it is: reductions need more than 8 or 11 bits."""
    return weights.float() if weights.dtype in (torch.float16, torch.bfloat16) else weights


def mean_of_rows(values: Tensor) -> Tensor:
    """Average (B, ...) over the rows of one batch."""
    return values.mean(dim=0)


def always() -> bool:
    """Say of every call that it is the first of an update."""
    return True


def check_number(name: str, value: object) -> float:
    """Check that a setting of a loss is a number, and return it.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(value)


def check_not_negative(name: str, value: object) -> None:
    """Check a setting of a loss.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is negative, infinite or NaN.
    """
    if not 0 <= check_number(name, value) < math.inf:
        raise ValueError(f"{name} must be >= 0 and finite, got {value}")


def embed(model: nn.Module, column: dict[str, Tensor]) -> Tensor:
    """Run the model on one column of a batch; returns term weights in float32 or wider, (B, V)."""
    embeddings: Tensor = model(column)["sentence_embedding"]
    return full_precision(embeddings)


class EmbeddingLoss(nn.Module, ABC):
    """Make a loss the trainer can call out of tensor maths.

    Args:
        model: Maps the features of B texts to a dict whose ``sentence_embedding`` is their term weights, (B, V).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> LossValue:
        """Embed the columns of one batch, the query column first, and compare them outside of any autocast."""
        columns = list(sentence_features)
        if not columns:
            raise ValueError(f"{type(self).__name__} needs at least one column of texts, got none")
        self.look_at(columns)
        embeddings = [self.embed_column(column) for column in columns]
        with torch.autocast(embeddings[0].device.type, enabled=False):
            return self.compute_loss_from_embeddings(embeddings, labels)

    def embed_column(self, column: dict[str, Tensor]) -> Tensor:
        """Run the model on one column of a batch; returns term weights in float32 or wider, (B, V)."""
        return embed(self.model, column)

    def look_at(self, columns: list[dict[str, Tensor]]) -> None:
        """Show the features of a batch, before it is embedded, to the losses that ask another model about it.

        Args:
            columns: Features of each column; the losses that this one is made of see them too.
        """
        for child in self.children():
            if isinstance(child, EmbeddingLoss):
                child.look_at(columns)

    @abstractmethod
    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> LossValue:
        """Compare the columns of one batch.

        Args:
            embeddings: Term weights of each column, (B, V) each, the query column first.
            labels: Targets of the batch; each loss says which shape it needs, or that it needs none.

        Returns:
            Scalar tensor, or scalar tensors by name that are to be added.
        """

    @abstractmethod
    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""


class Regularizer(nn.Module, ABC):
    """Make a penalty on one matrix of term weights; used alone, it takes the columns of a batch together.

    A penalty that averages over rows does so with :attr:`mean_over_batch`. Then it is that of the whole update, however
    many processes and micro-batches this is spread over (:mod:`sparse_encoder.losses.global_batch`). Any module with an
    attribute of this name gets the same. One that adapts itself to what it is given has ``begins_update`` too, which
    says whether a call is the first of an update.

    Args:
        model: As in :class:`EmbeddingLoss`.
    """

    mean_over_batch: Callable[[Tensor], Tensor]
    """Averages values of rows, (B, ...), over the rows of the batch; a trainer makes it those of the global batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.mean_over_batch = mean_of_rows

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Embed the columns of one batch and penalise their rows together; labels are not used."""
        columns = list(sentence_features)
        if not columns:
            raise ValueError(f"{type(self).__name__} needs at least one column of texts, got none")
        weights = torch.cat([embed(self.model, column) for column in columns])
        with torch.autocast(weights.device.type, enabled=False):
            return self.compute_loss_from_embeddings(weights)

    @abstractmethod
    def compute_loss_from_embeddings(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """Penalise the term weights of one column, (B, V); returns a scalar tensor."""

    @abstractmethod
    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
