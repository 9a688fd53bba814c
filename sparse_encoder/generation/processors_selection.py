"""Processors that say which tokens may come at all, and those that mend scores.

Letters: R rows (texts times beams), B texts, N beams, T tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from sparse_encoder.generation.processors import LogitsProcessor, at_least, chosen, token_ids

AllowedTokens = Callable[[int, Tensor], "Iterable[int] | Tensor"]
"""Takes the number of a text and the tokens of one of its rows, (T,); gives the ids that may follow."""


class PrefixConstrainedLogitsProcessor(LogitsProcessor):
    """Leave only the tokens that a function allows after those that are there.

    If none of a text's beams has a finite score left, they start anew among the allowed tokens, all with score 0.

    Args:
        prefix_allowed_tokens_fn: Takes the number of a text and the tokens of one row, (T,).
        num_beams: Rows of each text, which follow one another.

    Raises:
        ValueError: If ``num_beams`` is below 1.
    """

    def __init__(self, prefix_allowed_tokens_fn: AllowedTokens, num_beams: int) -> None:
        self._allowed = prefix_allowed_tokens_fn
        self._num_beams = at_least("num_beams", num_beams, 1)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V).

        Raises:
            ValueError: If the function allows no token, or one that is not below V.
        """
        mask = torch.full_like(scores, -torch.inf)
        for row, tokens in enumerate(input_ids):
            text = row // self._num_beams
            ids = token_ids("what prefix_allowed_tokens_fn returns", self._allowed(text, tokens))
            if not len(ids) or int(ids.max()) >= scores.shape[1]:
                raise ValueError(
                    f"prefix_allowed_tokens_fn must return ids below {scores.shape[1]}, the vocabulary, and at least "
                    f"one; for text {text} it returned {ids.tolist()}"
                )
            mask[row, ids.to(mask.device)] = 0
        allowed = scores + mask
        has_none = allowed.amax(dim=1).isneginf().view(-1, self._num_beams).all(dim=1)  # (B,)
        return torch.where(has_none.repeat_interleave(self._num_beams).unsqueeze(1), mask, allowed)


class SuppressTokensLogitsProcessor(LogitsProcessor):
    """Ban tokens.

    Args:
        suppress_tokens: Their ids; those beyond the vocabulary are passed over.
        device: Where the ids are kept.

    Raises:
        ValueError: If an id is below 0.
    """

    def __init__(self, suppress_tokens: Iterable[int], device: torch.device | str | None = None) -> None:
        self.suppress_tokens = token_ids("suppress_tokens", suppress_tokens, device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        return scores.masked_fill(chosen(scores, self.suppress_tokens), -torch.inf)


class SuppressTokensAtBeginLogitsProcessor(LogitsProcessor):
    """Ban tokens in one place.

    Args:
        begin_suppress_tokens: Their ids; those beyond the vocabulary are passed over.
        begin_index: The place, as a number of tokens before it.
        device: Where the ids are kept.

    Raises:
        ValueError: If an id is below 0.
    """

    def __init__(
        self, begin_suppress_tokens: Iterable[int], begin_index: int, device: torch.device | str | None = None
    ) -> None:
        self.begin_suppress_tokens = token_ids("begin_suppress_tokens", begin_suppress_tokens, device)
        self.begin_index = begin_index

    def set_begin_index(self, begin_index: int) -> None:
        """Ban the tokens in another place.

        Args:
            begin_index: The place, as a number of tokens before it.
        """
        self.begin_index = begin_index

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        if input_ids.shape[1] != self.begin_index:
            return scores
        return scores.masked_fill(chosen(scores, self.begin_suppress_tokens), -torch.inf)


class InfNanRemoveLogitsProcessor(LogitsProcessor):
    """Make every score finite: NaN becomes 0, an infinity the largest or smallest number."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        return torch.nan_to_num(scores, nan=0.0)


class LogitNormalization(LogitsProcessor):
    """Turn scores into log-probabilities."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        return scores.log_softmax(dim=-1)
