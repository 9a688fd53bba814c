"""Processors that favour, disfavour or ban sequences of tokens. They compare ids and know nothing of text.

Letters: R rows (texts times beams), T tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_encoder.generation.config_fields import FIELDS
from sparse_encoder.generation.processors import LogitsProcessor, token_ids


class _Group(NamedTuple):
    """Sequences of one length."""

    beginnings: Tensor
    """All but the last token of each, (number, length - 1)."""
    endings: Tensor
    """The last token of each, (number,)."""
    biases: Tensor
    """(number,)."""


def _groups(sequence_bias: Mapping[tuple[int, ...], float], device: torch.device) -> list[_Group]:
    lengths = sorted({len(tokens) for tokens in sequence_bias})
    by_length = [[each for each in sequence_bias.items() if len(each[0]) == length] for length in lengths]
    return [
        _Group(
            torch.tensor([tokens[:-1] for tokens, _ in each], dtype=torch.int64, device=device),
            torch.tensor([tokens[-1] for tokens, _ in each], dtype=torch.int64, device=device),
            torch.tensor([bias for _, bias in each], dtype=torch.float32, device=device),
        )
        for each in by_length
    ]


class _Biases:
    """Biases of sequences, put on the device of the scores when it is known.

    Args:
        name: What errors call them.
        sequence_bias: Biases by sequences of token ids, none of them empty.
    """

    def __init__(self, name: str, sequence_bias: Mapping[tuple[int, ...], float]) -> None:
        self._name = name
        self._by_sequence = sequence_bias
        self._largest = max(max(tokens) for tokens in sequence_bias)
        self._groups: list[_Group] = []

    def added(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with those biases that count for the tokens so far, (R, V).

        Raises:
            ValueError: If an id is not below V.
        """
        if self._largest >= scores.shape[1]:
            raise ValueError(f"{self._name} must hold ids below {scores.shape[1]}, the vocabulary; got {self._largest}")
        if not self._groups or self._groups[0].endings.device != scores.device:
            self._groups = _groups(self._by_sequence, scores.device)
        bias = torch.zeros_like(scores)
        for beginnings, endings, biases in self._groups:
            length = beginnings.shape[1]
            if length > input_ids.shape[1]:
                continue
            matches = (input_ids[:, None, input_ids.shape[1] - length :] == beginnings).all(dim=2)  # (R, number)
            bias.index_add_(1, endings, torch.where(matches, biases, 0.0).to(bias.dtype))
        return scores + bias


class SequenceBiasLogitsProcessor(LogitsProcessor):
    """Add a bias to the last token of sequences whose other tokens are the last of the row.

    Args:
        sequence_bias: Biases by sequences of token ids, or pairs of both; those of one token always count.

    Raises:
        ValueError: If it is empty, a sequence is, or it holds something else.
    """

    def __init__(self, sequence_bias: Mapping[tuple[int, ...], float] | Sequence[Sequence[object]]) -> None:
        biases = FIELDS["sequence_bias"]("sequence_bias", sequence_bias)
        assert isinstance(biases, dict)
        self.sequence_bias: dict[tuple[int, ...], float] = biases
        self._biases = _Biases("sequence_bias", biases)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V).

        Raises:
            ValueError: If an id is not below V.
        """
        return self._biases.added(input_ids, scores)


class NoBadWordsLogitsProcessor(LogitsProcessor):
    """Ban the last token of sequences whose other tokens are the last of the row.

    Args:
        bad_words_ids: Token ids of each sequence.
        eos_token_id: Ends of texts; a sequence that is nothing but one of them is not banned.

    Raises:
        ValueError: If there is no sequence, one is empty, or it holds something else.
    """

    def __init__(
        self, bad_words_ids: Sequence[Sequence[int]], eos_token_id: int | Sequence[int] | Tensor | None = None
    ) -> None:
        FIELDS["bad_words_ids"]("bad_words_ids", bad_words_ids)
        ends = [] if eos_token_id is None else token_ids("eos_token_id", eos_token_id).tolist()
        banned = {tuple(word): -torch.inf for word in bad_words_ids if len(word) > 1 or word[0] not in ends}
        self.bad_word_ids = bad_words_ids
        self._biases = _Biases("bad_words_ids", banned) if banned else None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V).

        Raises:
            ValueError: If an id is not below V.
        """
        return scores if self._biases is None else self._biases.added(input_ids, scores)
