"""When rows are finished: by length, time, end tokens or texts. They see token ids and know nothing of the model.

Letters: R rows (texts times beams, or their candidates), T tokens so far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from os.path import commonprefix
from typing import Protocol

import torch
from torch import Tensor

from sparse_encoder.generation.callers import warn
from sparse_encoder.generation.processors import token_ids

Criterion = Callable[..., "Tensor | bool"]
"""Takes token ids, (R, T), and the scores of all steps or None; tells for each row, or for all, whether it ends."""


class Decoder(Protocol):
    """What can put token ids together to a text."""

    def decode(self, ids: list[int], /) -> str:
        """Return the text."""
        ...


class StoppingCriteria:
    """Say which rows are finished."""

    def __call__(self, input_ids: Tensor, scores: tuple[Tensor, ...] | None, **values: object) -> Tensor:
        """Tell for each row whether it ends here.

        Args:
            input_ids: The tokens so far, the prompt and the newest included, (R, T).
            scores: Those of every step, (R, V) each, if the call asks for them; else None.
            values: What else is known of the step; none of the criteria here needs any.

        Returns:
            (R,), bool.

        Raises:
            TypeError: If a class of its own does not say when.
        """
        raise TypeError(f"{type(self).__name__} must define __call__(input_ids, scores)")


def _all_rows(input_ids: Tensor, value: bool) -> Tensor:
    return torch.full((len(input_ids),), value, device=input_ids.device, dtype=torch.bool)


class MaxLengthCriteria(StoppingCriteria):
    """End when the rows have a number of tokens, the prompt's included.

    Args:
        max_length: The number.
        max_position_embeddings: Places the model knows; a warning tells, once, that there are more tokens.
    """

    def __init__(self, max_length: int, max_position_embeddings: int | None = None) -> None:
        self.max_length = max_length
        self.max_position_embeddings = max_position_embeddings
        self._has_warned = False

    def __call__(self, input_ids: Tensor, scores: tuple[Tensor, ...] | None = None, **values: object) -> Tensor:
        """Tell for each row whether it ends, (R,)."""
        length, places = input_ids.shape[1], self.max_position_embeddings
        is_done = length >= self.max_length
        if places is not None and length > places and not is_done and not self._has_warned:
            self._has_warned = True
            warn(f"there are {length} tokens, and the model knows {places} places; set max_new_tokens")
        return _all_rows(input_ids, is_done)


class MaxTimeCriteria(StoppingCriteria):
    """End when a time has passed; the token that is being made is finished.

    Args:
        max_time: Seconds.
        initial_timestamp: When they begin, as ``time.time()``; None for now.
    """

    def __init__(self, max_time: float, initial_timestamp: float | None = None) -> None:
        self.max_time = max_time
        self.initial_timestamp = time.time() if initial_timestamp is None else initial_timestamp

    def __call__(self, input_ids: Tensor, scores: tuple[Tensor, ...] | None = None, **values: object) -> Tensor:
        """Tell for each row whether it ends, (R,)."""
        return _all_rows(input_ids, time.time() - self.initial_timestamp > self.max_time)


class EosTokenCriteria(StoppingCriteria):
    """End rows whose newest token is an end; one that the prompt has does not count.

    Args:
        eos_token_id: Ends of texts.

    Raises:
        ValueError: If an id is below 0.
    """

    def __init__(self, eos_token_id: int | Sequence[int] | Tensor) -> None:
        self.eos_token_id = token_ids("eos_token_id", eos_token_id)

    def __call__(self, input_ids: Tensor, scores: tuple[Tensor, ...] | None = None, **values: object) -> Tensor:
        """Tell for each row whether it ends, (R,)."""
        if self.eos_token_id.device != input_ids.device:
            self.eos_token_id = self.eos_token_id.to(input_ids.device)
        return torch.isin(input_ids[:, -1], self.eos_token_id)


class StopStringCriteria(StoppingCriteria):
    """End rows whose newest token completes a text; the token may go on behind it, and the text stays in the result.

    What is compared is what the tokenizer makes of the last tokens of a row, with and without the newest: the text must
    be in the first and end behind the second.

    Args:
        tokenizer: Anything with ``decode``.
        stop_strings: One text or several.

    Raises:
        ValueError: If there is no text, or one is empty.
    """

    def __init__(self, tokenizer: Decoder, stop_strings: str | Sequence[str]) -> None:
        texts = (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings)
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise ValueError(f"stop_strings must be a text or a list of texts, none of them empty, got {texts}")
        self.tokenizer = tokenizer
        self.stop_strings = texts
        self._tail = 4 * max(len(text.encode()) for text in texts) + 8

    def __call__(self, input_ids: Tensor, scores: tuple[Tensor, ...] | None = None, **values: object) -> Tensor:
        """Tell for each row whether it ends, (R,)."""
        tails = input_ids[:, -self._tail :].tolist()
        return torch.tensor([self._ends(tail) for tail in tails], dtype=torch.bool, device=input_ids.device)

    def _ends(self, tail: list[int]) -> bool:
        text, before = self.tokenizer.decode(tail), self.tokenizer.decode(tail[:-1])
        return any(_new(text, before, stop) for stop in self.stop_strings)


def _new(text: str, before: str, stop: str) -> bool:
    """Return whether a text has what ends behind the part that it shares with how it was a token ago."""
    shared = len(commonprefix((text, before)))
    return text.find(stop, max(0, shared - len(stop) + 1)) >= 0


class StoppingCriteriaList(list[Criterion]):
    """End a row as soon as one of several criteria ends it."""

    def __call__(  # house: peer signature
        self, input_ids: Tensor, scores: tuple[Tensor, ...] | None = None, **values: object
    ) -> Tensor:
        """Tell for each row whether it ends, (R,).

        Args:
            input_ids: The tokens so far, (R, T).
            scores: Those of every step, or None.
            values: What else is known of the step, for criteria of one's own.

        Raises:
            ValueError: If a criterion tells neither for each row nor for all.
        """
        is_done = _all_rows(input_ids, False)
        for criterion in self:
            told = criterion(input_ids, scores, **values)
            answer = torch.as_tensor(told, dtype=torch.bool, device=input_ids.device)
            if answer.dim() > 1 or (answer.dim() == 1 and len(answer) not in (1, len(is_done))):
                raise ValueError(
                    f"{type(criterion).__name__} must return a bool or one for each of {len(is_done)} rows, got shape "
                    f"{tuple(answer.shape)}"
                )
            is_done = is_done | answer
        return is_done

    @property
    def max_length(self) -> int | None:
        """Tokens at which a criterion about length ends the rows, if there is one."""
        return next((each.max_length for each in self if isinstance(each, MaxLengthCriteria)), None)


def validate_stopping_criteria(stopping_criteria: StoppingCriteriaList, max_length: int) -> StoppingCriteriaList:
    """Return criteria among which there is one about length; those that come in are left as they are.

    A warning tells where there is one already, of another length; it then stays.

    Args:
        stopping_criteria: Where one about length is added if there is none.
        max_length: Tokens at which that one ends the rows.
    """
    length = stopping_criteria.max_length
    if length is None:
        return StoppingCriteriaList([*stopping_criteria, MaxLengthCriteria(max_length)])
    if length != max_length:
        warn(f"max_length is {max_length}, and the stopping criteria say {length}, which holds; leave one of them out")
    return StoppingCriteriaList(stopping_criteria)
