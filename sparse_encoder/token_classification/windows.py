"""The windows of a long text put together: each token once, with the scores of the window that sees most around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from sparse_encoder.token_classification.aggregation import Scores


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one text, without special ones.

    Attributes:
        texts: Each token.
        ids: Number of each token in the vocabulary.
        offsets: Begin and end of each, in characters of the text, or of its word.
        word_ids: Word of each.
        scores: Probabilities of the labels, (tokens, labels).
        first: Special tokens before the first one.
        links: Which of them a linear chain went through, (tokens,); None is all.
    """

    texts: list[str]
    ids: list[int]
    offsets: list[tuple[int, int]]
    word_ids: list[int | None]
    scores: Scores
    first: int
    links: NDArray[np.bool_] | None = None


def tokens_of(encoding: Encoding, scores: Scores, links: NDArray[np.bool_] | None = None) -> Tokens:
    """Return the tokens of one window.

    Args:
        encoding: The window.
        scores: Probabilities of the labels for all its tokens, special ones too, (T, labels).
        links: Which of all its tokens a linear chain went through, (T,); None is all.
    """
    places = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
    texts, ids, offsets, words = encoding.tokens, encoding.ids, encoding.offsets, encoding.word_ids
    return Tokens(
        [texts[place] for place in places],
        [ids[place] for place in places],
        [offsets[place] for place in places],
        [words[place] for place in places],
        scores[places],
        places[0] if places else 0,
        None if links is None else links[places],
    )


def begins_of(lengths: Sequence[int], stride: int, side: str) -> list[int]:
    """Return which token of the text each window begins with.

    Args:
        lengths: Tokens of each window, special ones left out. All but the last are full.
        stride: Tokens that a window has in common with the one before.
        side: The end of the text where windows are cut off; they start at the other one.
    """
    step = lengths[0] - stride
    total = lengths[-1] + (len(lengths) - 1) * step if len(lengths) > 1 else lengths[0]
    moves = [number * step for number in range(len(lengths))]
    return [max(0, total - lengths[0] - move) for move in moves] if side == "left" else moves


def joined(windows: Sequence[Tokens], stride: int, side: str) -> Tokens:
    """Put the windows of a text together.

    Args:
        windows: In the order the tokenizer gives them.
        stride: Tokens that a window has in common with the one before.
        side: As in :func:`begins_of`.
    """
    if len(windows) == 1:
        return windows[0]
    lengths = [len(window.ids) for window in windows]
    begins = begins_of(lengths, stride, side)
    total = max(begin + length for begin, length in zip(begins, lengths, strict=True))
    sight = np.full(total, -1)
    source = np.zeros((total, 2), dtype=np.int64)  # which window, and which of its tokens
    for number, (begin, length) in enumerate(zip(begins, lengths, strict=True)):
        own = _sight(begin, length, total)
        better = own > sight[begin : begin + length]
        sight[begin : begin + length][better] = own[better]
        source[begin : begin + length][better] = np.stack([np.full(length, number), np.arange(length)], axis=1)[better]
    chosen = [(windows[number], place) for number, place in source.tolist()]
    return Tokens(
        [window.texts[place] for window, place in chosen],
        [window.ids[place] for window, place in chosen],
        [window.offsets[place] for window, place in chosen],
        [window.word_ids[place] for window, place in chosen],
        np.stack([window.scores[place] for window, place in chosen]),
        windows[0].first,
        _links(windows, chosen),
    )


def _links(windows: Sequence[Tokens], chosen: Sequence[tuple[Tokens, int]]) -> NDArray[np.bool_] | None:
    """Return which of the chosen tokens were links."""
    if windows[0].links is None:
        return None
    return np.array([window.links is None or bool(window.links[place]) for window, place in chosen], dtype=np.bool_)


def _sight(begin: int, length: int, total: int) -> NDArray[np.int64]:
    """Return for each token of a window how far it sees; the ends of the text hide nothing."""
    left = np.arange(length) + (total if begin == 0 else 0)
    right = np.arange(length)[::-1] + (total if begin + length == total else 0)
    return np.minimum(left, right)
