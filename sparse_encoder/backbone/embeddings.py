"""From token ids to the first hidden states. Knows nothing of text and of layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.dropout import Dropout


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingOptions:
    """Say in what embeddings differ from the usual."""

    norm_last: bool = False
    """Normalise behind the projection and not before it."""
    scale: float = 1.0
    """What the words' rows are multiplied with."""
    first_position: int = 0
    """Row of the first token in the position table, where all tokens count."""


PLAIN_EMBEDDINGS = EmbeddingOptions()


class Embeddings(nn.Module):
    """Add up word, place and token type, normalise, and project when the width differs.

    Args:
        word: One row per token id, (V, E); None for a stack that is always given embeddings.
        position: One row per place, (P, E); None for families that rotate instead.
        token_type: One row per token type; None for families without.
        norm: Applied to the sum; None leaves it as it is.
        dropout: Applied behind the norm, in training.
        projection: From E to the hidden size; None when they are one.
        padding_id: Given, places count only tokens with another id and start behind it, as in RoBERTa.
        options: What few families have.
    """

    def __init__(
        self,
        word: nn.Embedding | None,
        *,
        position: nn.Embedding | None,
        token_type: nn.Embedding | None,
        norm: nn.Module | None,
        dropout: float = 0.0,
        projection: nn.Linear | None = None,
        padding_id: int | None = None,
        options: EmbeddingOptions = PLAIN_EMBEDDINGS,
    ) -> None:
        super().__init__()
        if word is not None:
            self.word = word
        self.position = position
        self.token_type = token_type
        self.norm = norm
        self.dropout = Dropout(dropout)
        self.projection = projection
        self.padding_id = padding_id
        self.options = options

    def forward(
        self,
        input_ids: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        *,
        inputs_embeds: Tensor | None = None,
        past: int = 0,
    ) -> Tensor:
        """Embed the tokens of a batch.

        Args:
            input_ids: Token ids, (B, T); None with embeddings.
            token_type_ids: Token types, (B, T); None stands for zeros.
            position_ids: Places in the position table, (T,) or (B, T); None counts them.
            inputs_embeds: What to take in the place of the words' rows, (B, T, E), as it is.
            past: Tokens before the first one.

        Returns:
            Hidden states, (B, T, D).

        Raises:
            ValueError: If given embeddings are of another dtype than the words' rows.
        """
        if inputs_embeds is not None:
            self.check_dtype("inputs_embeds", inputs_embeds)
        summands = []
        if self.token_type is not None:
            row = self.token_type.weight[0] if token_type_ids is None else self.token_type(token_type_ids)
            summands.append(row)  # (E,) or (B, T, E)
        hidden = (
            inputs_embeds if inputs_embeds is not None else None if input_ids is None else self.embed_words(input_ids)
        )
        assert hidden is not None  # the transformer has looked
        if self.position is not None:
            places = position_ids
            if places is None:
                places = self.positions(input_ids if inputs_embeds is None else None, hidden, past)
            summands.append(self.position(places))  # (T, E) or (B, T, E)
        if summands:
            hidden = hidden + (summands[0] if len(summands) == 1 else summands[0] + summands[1])
        if self.options.norm_last:
            return self._normalise(hidden if self.projection is None else self.projection(hidden))
        hidden = self._normalise(hidden)
        return hidden if self.projection is None else self.projection(hidden)

    def embed_words(self, input_ids: Tensor) -> Tensor:
        """Return the words' rows, multiplied with the family's scale, (B, T, E)."""
        hidden: Tensor = self.word(input_ids)
        return hidden if self.options.scale == 1 else hidden * self.options.scale

    def check_dtype(self, name: str, given: Tensor) -> None:
        """Raise a ValueError if embeddings are of another dtype than the words' rows, unless autocast settles it.

        Args:
            name: Of the argument.
            given: Embeddings, (B, T, E).
        """
        word = getattr(self, "word", None)
        if word is None or given.dtype == word.weight.dtype:
            return
        device = given.device.type
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            raise ValueError(
                f"{name} must be of the model's dtype {word.weight.dtype}, got {given.dtype}; use "
                f"{name}.to(model.dtype)"
            )

    def _normalise(self, hidden: Tensor) -> Tensor:
        normalised: Tensor = self.dropout(hidden if self.norm is None else self.norm(hidden))
        return normalised

    def positions(self, input_ids: Tensor | None, hidden: Tensor, past: int = 0) -> Tensor:
        """Count the places of tokens, (T,), or (B, T) when padding is not counted.

        Args:
            input_ids: Token ids, (B, T); without them everything counts as a token.
            hidden: Of as many tokens, on the device of the places, (B, T, E).
            past: Tokens before the first one.
        """
        if self.padding_id is None or input_ids is None:
            first = self.options.first_position if self.padding_id is None else self.padding_id + 1
            return torch.arange(past + first, past + first + hidden.shape[1], device=hidden.device)
        is_token = (input_ids != self.padding_id).long()
        return is_token.cumsum(dim=1) * is_token + self.padding_id
