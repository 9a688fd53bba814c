"""Processors against saying the same again. They compare token ids and know nothing of text.

Letters: R rows (texts times beams), B texts, T tokens so far, S tokens of the encoder, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from sparse_encoder.generation.processors import LogitsProcessor, above_zero, at_least


def _penalised(ids: Tensor, scores: Tensor, penalty: float, counts: Tensor | None = None) -> Tensor:
    """Weaken tokens once each: s / p, or s * p where s is below 0.

    Args:
        ids: Which tokens, (R, T); those beyond V are passed over.
        scores: (R, V).
        penalty: p; below 1 it strengthens them.
        counts: Which places of ``ids`` count, (R, T); None for all.
    """
    vocabulary = scores.shape[1]
    place = ids.clamp(max=vocabulary)  # one column more, for those that do not count
    if counts is not None:
        place = torch.where(counts, place, vocabulary)
    wider = pad(scores, (0, 1))
    seen = wider.gather(1, place)
    weaker = torch.where(seen < 0, seen * penalty, seen / penalty)  # a token that is there twice has one value
    return wider.scatter(1, place, weaker)[:, :vocabulary].contiguous()


class RepetitionPenaltyLogitsProcessor(LogitsProcessor):
    r"""Weaken every token that is in the row already, once.

    .. math:: s' = s / p \;\text{ if } s \ge 0, \quad s \cdot p \;\text{ otherwise}

    Source: Keskar et al., 2019, https://arxiv.org/abs/1909.05858.

    Args:
        penalty: p; 1 changes nothing.
        prompt_ignore_length: Tokens at the start of each row that do not count, one number for all rows or (R,), as for
            padding on the left.

    Raises:
        ValueError: If the penalty is not above 0, or the length is below 0 or has the wrong shape.
    """

    def __init__(self, penalty: float, prompt_ignore_length: int | Tensor | None = None) -> None:
        self.penalty = above_zero("penalty", penalty)
        if isinstance(prompt_ignore_length, Tensor):
            if prompt_ignore_length.dim() != 1:
                raise ValueError(
                    f"prompt_ignore_length must have one axis, got shape {tuple(prompt_ignore_length.shape)}"
                )
        elif prompt_ignore_length is not None:
            at_least("prompt_ignore_length", prompt_ignore_length, 0)
        self.prompt_ignore_length = prompt_ignore_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        ignored = self.prompt_ignore_length
        if ignored is None:
            return _penalised(input_ids, scores, self.penalty)
        places = torch.arange(input_ids.shape[1], device=input_ids.device).expand(input_ids.shape)
        if isinstance(ignored, Tensor):
            if len(ignored) != len(input_ids):
                raise ValueError(f"prompt_ignore_length must have {len(input_ids)} rows, got {len(ignored)}")
            ignored = ignored.to(input_ids.device).unsqueeze(1)
        return _penalised(input_ids, scores, self.penalty, places >= ignored)


class EncoderRepetitionPenaltyLogitsProcessor(LogitsProcessor):
    """Strengthen every token of the encoder's text, or of the prompt: a repetition penalty of 1 / p.

    Args:
        penalty: p; above 1 favours the tokens of that text.
        encoder_input_ids: The text, (B, S); each row serves R / B rows that follow one another.

    Raises:
        ValueError: If the penalty is not above 0.
    """

    def __init__(self, penalty: float, encoder_input_ids: Tensor) -> None:
        self.penalty = 1 / above_zero("penalty", penalty)
        self.encoder_input_ids = encoder_input_ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        ids = _of_rows(self.encoder_input_ids, len(scores)).to(scores.device)
        return _penalised(ids, scores, self.penalty)


def _of_rows(ids: Tensor, rows: int) -> Tensor:
    """Repeat each of B texts for R / B rows."""
    if rows % len(ids):
        raise ValueError(f"encoder_input_ids must have rows that divide {rows}, got {len(ids)}")
    return ids.repeat_interleave(rows // len(ids), dim=0)


def _without_repeated(source: Tensor, input_ids: Tensor, scores: Tensor, size: int) -> Tensor:
    """Ban every token that would complete an n-gram of ``source``.

    Args:
        source: Where the n-grams are, (R, S).
        input_ids: What ends in the first n - 1 tokens of one, (R, T).
        scores: (R, V).
        size: n.
    """
    if source.shape[1] < size or input_ids.shape[1] < size - 1:
        return scores
    vocabulary = scores.shape[1]
    windows = source.unfold(1, size, 1)  # (R, S - n + 1, n)
    ending = input_ids[:, input_ids.shape[1] - (size - 1) :]  # (R, n - 1)
    completes = (windows[:, :, :-1] == ending.unsqueeze(1)).all(dim=2)
    place = torch.where(completes, windows[:, :, -1].clamp(max=vocabulary), vocabulary)
    is_banned = torch.zeros(len(scores), vocabulary + 1, dtype=torch.bool, device=scores.device)
    return scores.masked_fill(is_banned.scatter(1, place, True)[:, :vocabulary], -torch.inf)


class NoRepeatNGramLogitsProcessor(LogitsProcessor):
    """Ban every token that would complete an n-gram that is in the row already, the prompt included.

    Args:
        ngram_size: n; 1 bans every token of the row.

    Raises:
        ValueError: If it is below 1.
    """

    def __init__(self, ngram_size: int) -> None:
        self.ngram_size = at_least("ngram_size", ngram_size, 1)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        return _without_repeated(input_ids, input_ids, scores, self.ngram_size)


class EncoderNoRepeatNGramLogitsProcessor(LogitsProcessor):
    """Ban every token that would complete an n-gram of the encoder's text.

    Args:
        encoder_ngram_size: n.
        encoder_input_ids: The text, (B, S) or, of one text, (S,); each row serves R / B rows that follow one another.

    Raises:
        ValueError: If n is below 1.
    """

    def __init__(self, encoder_ngram_size: int, encoder_input_ids: Tensor) -> None:
        self.ngram_size = at_least("encoder_ngram_size", encoder_ngram_size, 1)
        self.encoder_input_ids = encoder_input_ids.unsqueeze(0) if encoder_input_ids.dim() == 1 else encoder_input_ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        source = _of_rows(self.encoder_input_ids, len(scores)).to(scores.device)
        return _without_repeated(source, input_ids, scores, self.ngram_size)
