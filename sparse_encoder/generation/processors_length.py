"""Processors that look at how long the text is: when it may end, when it must, and how it begins.

Letters: R rows (texts times beams), T tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparse_encoder.generation.processors import LogitsProcessor, above_zero, at_least, chosen, token_ids

Ids = int | Sequence[int] | Tensor


def _without_ends(input_ids: Tensor, scores: Tensor, ends: Tensor, length: int) -> Tensor:
    """Ban the ends of texts while there are fewer tokens than a length."""
    return scores if input_ids.shape[1] >= length else scores.masked_fill(chosen(scores, ends), -torch.inf)


class MinLengthLogitsProcessor(LogitsProcessor):
    """Ban the ends of texts while there are fewer tokens than a minimum, the prompt included.

    Args:
        min_length: Tokens, the prompt's included.
        eos_token_id: Ends of texts.
        device: Where the ids are kept.

    Raises:
        ValueError: If the length or an id is below 0.
    """

    def __init__(self, min_length: int, eos_token_id: Ids, device: torch.device | str | None = None) -> None:
        self.min_length = at_least("min_length", min_length, 0)
        self.eos_token_id = token_ids("eos_token_id", eos_token_id, device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        return _without_ends(input_ids, scores, self.eos_token_id, self.min_length)


class MinNewTokensLengthLogitsProcessor(LogitsProcessor):
    """Ban the ends of texts while fewer tokens than a minimum have been generated.

    Args:
        prompt_length_to_skip: Tokens that were there before.
        min_new_tokens: Tokens to generate.
        eos_token_id: Ends of texts.
        device: Where the ids are kept.

    Raises:
        ValueError: If a number or an id is below 0.
    """

    def __init__(
        self,
        prompt_length_to_skip: int,
        min_new_tokens: int,
        eos_token_id: Ids,
        device: torch.device | str | None = None,
    ) -> None:
        self.prompt_length_to_skip = at_least("prompt_length_to_skip", prompt_length_to_skip, 0)
        self.min_new_tokens = at_least("min_new_tokens", min_new_tokens, 0)
        self.eos_token_id = token_ids("eos_token_id", eos_token_id, device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        return _without_ends(input_ids, scores, self.eos_token_id, self.prompt_length_to_skip + self.min_new_tokens)


def _forced(ids: Tensor, largest: int, scores: Tensor, name: str) -> Tensor:
    """Leave nothing but some tokens, with score 0."""
    if largest >= scores.shape[1]:
        raise ValueError(f"{name} must be below {scores.shape[1]}, the vocabulary; got {largest}")
    return torch.full_like(scores, -torch.inf).masked_fill(chosen(scores, ids), 0.0)


class ForcedBOSTokenLogitsProcessor(LogitsProcessor):
    """Make one token the second of every row: nothing else is left where there is one token so far.

    Args:
        bos_token_id: The token.

    Raises:
        ValueError: If it is below 0.
    """

    def __init__(self, bos_token_id: int) -> None:
        self.bos_token_id = at_least("forced_bos_token_id", bos_token_id, 0)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V).

        Raises:
            ValueError: If the token is not below V.
        """
        if input_ids.shape[1] != 1:
            return scores
        return _forced(torch.tensor([self.bos_token_id]), self.bos_token_id, scores, "forced_bos_token_id")


class ForcedEOSTokenLogitsProcessor(LogitsProcessor):
    """Leave nothing but some tokens for the last place that there is.

    Args:
        max_length: Tokens of a row at most, the prompt's included.
        eos_token_id: The tokens.
        device: Where the ids are kept.

    Raises:
        ValueError: If there is no token, or one is below 0.
    """

    def __init__(self, max_length: int, eos_token_id: Ids, device: torch.device | str | None = None) -> None:
        self.max_length = max_length
        self.eos_token_id = token_ids("forced_eos_token_id", eos_token_id, device)
        if not len(self.eos_token_id):
            raise ValueError("forced_eos_token_id must hold at least one id, got an empty list; None forces none")
        self._largest = int(self.eos_token_id.max())

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V).

        Raises:
            ValueError: If a token is not below V.
        """
        if input_ids.shape[1] != self.max_length - 1:
            return scores
        return _forced(self.eos_token_id, self._largest, scores, "forced_eos_token_id")


class ExponentialDecayLengthPenalty(LogitsProcessor):
    r"""Favour the ends of texts more with every token beyond a number of generated ones.

    .. math:: s' = s + |s| \, (f^k - 1)

    with k tokens beyond; a score that is not finite stays as it is.

    Args:
        exponential_decay_length_penalty: Generated tokens after which it begins, and f.
        eos_token_id: Ends of texts.
        input_ids_seq_length: Tokens of the prompt.

    Raises:
        ValueError: If f is not above 0, or an id is below 0.
    """

    def __init__(
        self, exponential_decay_length_penalty: tuple[int, float], eos_token_id: Ids, input_ids_seq_length: int
    ) -> None:
        start, factor = exponential_decay_length_penalty
        self.regulation_start = start + input_ids_seq_length
        self.regulation_factor = above_zero("the factor of exponential_decay_length_penalty", factor)
        self.eos_token_id = token_ids("eos_token_id", eos_token_id)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        beyond = input_ids.shape[1] - self.regulation_start
        if beyond <= 0:
            return scores
        favoured = scores + scores.abs() * (self.regulation_factor**beyond - 1)
        return torch.where(chosen(scores, self.eos_token_id) & scores.isfinite(), favoured, scores)
