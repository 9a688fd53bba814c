"""From token ids to the first hidden states. Knows nothing of text and of layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.dropout import Dropout


class Embeddings(nn.Module):
    """Add up word, place and token type, normalise, and project when the width differs.

    Args:
        word: One row per token id, (V, E).
        position: One row per place, (P, E); None for families that rotate instead.
        token_type: One row per token type; None for families without.
        norm: Applied to the sum.
        dropout: Applied behind the norm, in training.
        projection: From E to the hidden size; None when they are one.
        norm_last: Normalise behind the projection and not before it.
        padding_id: Given, places count only tokens with another id and start behind it, as in RoBERTa.
    """

    def __init__(
        self,
        word: nn.Embedding,
        *,
        position: nn.Embedding | None,
        token_type: nn.Embedding | None,
        norm: nn.Module,
        dropout: float = 0.0,
        projection: nn.Linear | None = None,
        norm_last: bool = False,
        padding_id: int | None = None,
    ) -> None:
        super().__init__()
        self.word = word
        self.position = position
        self.token_type = token_type
        self.norm = norm
        self.dropout = Dropout(dropout)
        self.projection = projection
        self.norm_last = norm_last
        self.padding_id = padding_id

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None, position_ids: Tensor | None) -> Tensor:
        """Embed the tokens of a batch.

        Args:
            input_ids: Token ids, (B, T).
            token_type_ids: Token types, (B, T); None stands for zeros.
            position_ids: Places in the position table, (T,) or (B, T); None counts them.

        Returns:
            Hidden states, (B, T, D).
        """
        summands = []
        if self.token_type is not None:
            row = self.token_type.weight[0] if token_type_ids is None else self.token_type(token_type_ids)
            summands.append(row)  # (E,) or (B, T, E)
        if self.position is not None:
            places = self.positions(input_ids) if position_ids is None else position_ids
            summands.append(self.position(places))  # (T, E) or (B, T, E)
        hidden: Tensor = self.word(input_ids)  # (B, T, E)
        if summands:
            hidden = hidden + (summands[0] if len(summands) == 1 else summands[0] + summands[1])
        if self.norm_last:
            return self._normalise(hidden if self.projection is None else self.projection(hidden))
        hidden = self._normalise(hidden)
        return hidden if self.projection is None else self.projection(hidden)

    def _normalise(self, hidden: Tensor) -> Tensor:
        normalised: Tensor = self.dropout(self.norm(hidden))
        return normalised

    def positions(self, input_ids: Tensor) -> Tensor:
        """Count the places of tokens, (T,), or (B, T) when padding is not counted."""
        if self.padding_id is None:
            return torch.arange(input_ids.shape[1], device=input_ids.device)
        is_token = (input_ids != self.padding_id).long()
        return is_token.cumsum(dim=1) * is_token + self.padding_id
