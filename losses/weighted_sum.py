"""Several losses in one step; knows neither what they compute nor what they need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.losses.base import EmbeddingLoss, Regularizer, check_not_negative
from sparse_encoder.losses.checks import compares_columns


class WeightedSumLoss(EmbeddingLoss):
    """Add several losses up; each comes back by its name, already weighted, and so into the log.

    A loss made of losses gives ``name_term`` for each of its terms. A regulariser judges the rows of all columns
    together, as it does alone. Columns and labels go to every loss as they are.

    Args:
        model: The encoder that is trained.
        losses: By the name that they are logged under.
        weights: By name, not negative; 1 where there is none.

    Raises:
        TypeError: If losses or weights do not come by name, or a weight is not a number.
        ValueError: If there is no loss, a loss does not compute from embeddings, a weight is negative, infinite or of
            no loss, or a name cannot be that of a module.
    """

    def __init__(
        self,
        model: nn.Module,
        losses: Mapping[str, EmbeddingLoss | Regularizer],
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(model)
        self.weights = _checked_weights(losses, weights)
        self.losses = nn.ModuleDict(dict(losses))

    def look_at(self, columns: list[dict[str, Tensor]]) -> None:
        """Show the features of a batch to the losses."""
        for loss in self.losses.values():
            if isinstance(loss, EmbeddingLoss):
                loss.look_at(columns)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> dict[str, Tensor]:
        """Compare the columns of one batch in every way.

        Args:
            embeddings: Term weights of each column, (B, V) each.
            labels: Handed to every loss.

        Returns:
            The weighted terms, scalars by name.

        Raises:
            ValueError: If two terms come to have one name.
        """
        terms: dict[str, Tensor] = {}
        for name, loss in self.losses.items():
            if isinstance(loss, Regularizer):
                value = loss.compute_loss_from_embeddings(torch.cat(embeddings))
            else:
                value = loss.compute_loss_from_embeddings(embeddings, labels)  # type: ignore[operator]  # was checked
            parts = (
                {f"{name}_{part}": term for part, term in value.items()} if isinstance(value, dict) else {name: value}
            )
            if twice := sorted(terms.keys() & parts.keys()):
                raise ValueError(f"two losses have a term {twice[0]!r}: {name!r} and one before it; rename one of them")
            terms |= {part: term * self.weights[name] for part, term in parts.items()}
        return terms

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {
            "losses": {name: type(loss).__name__ for name, loss in self.losses.items()},
            "weights": dict(self.weights),
        }


class WeightedSumRegularizer(Regularizer):
    """Add several penalties on one matrix up, to a single one that SpladeLoss takes.

    Args:
        model: The encoder whose term weights are penalised.
        regularizers: By name.
        weights: By name, not negative; 1 where there is none.

    Raises:
        TypeError: If a weight is not a number.
        ValueError: As in :class:`WeightedSumLoss`, and if one is no regulariser.
    """

    def __init__(
        self, model: nn.Module, regularizers: Mapping[str, Regularizer], weights: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(model)
        self.weights = _checked_weights(regularizers, weights)
        if others := [name for name, each in regularizers.items() if not isinstance(each, Regularizer)]:
            raise ValueError(f"{others} are no regularizers, which judge one matrix of term weights")
        self.regularizers = nn.ModuleDict(dict(regularizers))

    def compute_loss_from_embeddings(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the weighted sum of the penalties of term weights, (B, V); a scalar tensor."""
        penalties = [
            self.weights[name] * each.compute_loss_from_embeddings(embeddings)  # type: ignore[operator]  # was checked
            for name, each in self.regularizers.items()
        ]
        return torch.stack(penalties).sum()

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {
            "regularizers": {name: type(each).__name__ for name, each in self.regularizers.items()},
            "weights": dict(self.weights),
        }


def _checked_weights(losses: Mapping[str, nn.Module], weights: Mapping[str, float] | None) -> dict[str, float]:
    """Return the weight of every loss, and refuse what is no loss, no weight or no name."""
    for what, given_ones in (("losses", losses), ("weights", {} if weights is None else weights)):
        if not isinstance(given_ones, Mapping):
            raise TypeError(f"{what} must come by name, as a dict, got {type(given_ones).__name__}")
    if not losses:
        raise ValueError("a weighted sum needs at least one loss, got none")
    for name, loss in losses.items():
        if not name or "." in name or hasattr(nn.ModuleDict, name):
            raise ValueError(f"{name!r} cannot be the name of a loss; take letters, digits and underscores")
        if not compares_columns(loss):
            raise ValueError(
                f"{name!r} must be a loss with compute_loss_from_embeddings(embeddings, labels), "
                f"got {type(loss).__name__}"
            )
    given = {} if weights is None else dict(weights)
    if unknown := sorted(set(given) - set(losses)):
        raise ValueError(f"there are weights for {unknown}, but only losses called {sorted(losses)}")
    for name, weight in given.items():
        check_not_negative(f"the weight of {name!r}", weight)
    return {name: given.get(name, 1.0) for name in losses}
