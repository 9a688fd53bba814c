"""Scores of tokens into entities: five strategies. Tensor-free: numbers and texts in, dictionaries out.

Results of transformers' pipeline on the same scores, with ``legacy_subword`` to the letter. Without it, a token goes on
with a word if the tokenizer says so (transformers guesses from lengths and blanks, and joins words around invisible
characters), combining marks belong to the letter before them, and blanks to nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sparse_encoder.token_classification.tags import OUTSIDE, scheme_of_labels, split_tag

AggregationStrategy = Literal["none", "simple", "first", "average", "max"]
STRATEGIES: tuple[AggregationStrategy, ...] = get_args(AggregationStrategy)
JOINER = "\u200d"
TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))
Scores = NDArray[np.float32]
Found = dict[str, Any]
"""An entity or token: ``entity`` or ``entity_group``, ``score``, ``word``, ``start``, ``end``, and ``index``."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A token of a text, without special ones."""

    token: str
    scores: Scores
    """Probability of each label, (labels,)."""
    start: int
    """Its first character in the text."""
    end: int
    """The character behind its last."""
    index: int
    """Its place among the tokens, special ones counted."""
    goes_on: bool
    """Whether it belongs to the word of the piece before."""
    lead: tuple[str, ...] = ()
    """Tokens of blanks between the piece before and this one."""
    opening: tuple[Scores, ...] = ()
    """Scores of those among them that begin its word."""
    first_index: int = 0
    """Place of the token that begins its word, if the piece does not go on; else its own."""
    is_link: bool = True
    """Whether its scores say something; a piece whose scores do not is labelled as the one before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Aggregation:
    """How tokens become entities.

    Raises:
        ValueError: If the strategy is unknown, or the threshold is no probability.
    """

    strategy: str = "none"
    ignore_labels: tuple[str, ...] = (OUTSIDE,)
    threshold: float = 0.0
    """Least score of an entity."""
    legacy_subword: bool = False
    """As transformers 5.23: its names of groups, and no care for combining marks."""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.strategy not in STRATEGIES:
            raise ValueError(f"unknown aggregation_strategy {self.strategy!r}; choose from {sorted(STRATEGIES)}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be between 0 and 1, got {self.threshold}")


@dataclass(frozen=True, slots=True)
class _Word:
    """A token or a word with one label."""

    label: str
    score: np.float32
    pieces: Sequence[Piece]
    text: str
    start: int
    end: int
    index: int


def aggregate(
    pieces: Sequence[Piece],
    names: Sequence[str],
    how: Aggregation,
    *,
    join: Callable[[Sequence[str]], str],
) -> list[Found]:
    """Turn the tokens of one text into entities.

    Args:
        pieces: The tokens in order.
        names: Name of each label by its number.
        how: The strategy, and what is left out.
        join: Turns tokens into text, as the tokenizer's decoder does.

    Returns:
        For ``"none"`` a dictionary for each token: ``entity``, ``score``, ``index``, ``word``, ``start``, ``end``; else
        one for each group: ``entity_group``, ``score``, ``word``, ``start``, ``end``. Scores are floats.
    """
    if how.strategy in ("none", "simple"):
        words = _tokens(pieces, names)
    else:
        words = [_word(group, how, names, join) for group in _grouped(pieces)]
    if how.strategy == "none":
        found = [_token(word) for word in words]
        return [each for each in found if _kept(each, "entity", how)]
    if not how.legacy_subword and scheme_of_labels(names) in ("IOBES", "BILOU"):
        words = _in_iob2(words)
    found = [_group(group, how, join) for group in _adjacent(words)]
    return [each for each in found if _kept(each, "entity_group", how)]


def _kept(found: Found, key: str, how: Aggregation) -> bool:
    return found[key] not in how.ignore_labels and bool(found["score"] >= how.threshold)


def _tokens(pieces: Sequence[Piece], names: Sequence[str]) -> list[_Word]:
    """Give each piece its likeliest label; one that is no link goes on with what is before it."""
    words: list[_Word] = []
    for piece in pieces:
        word = _chosen([piece], piece.scores, piece.token, names)
        if words and not piece.is_link:
            begins, kind = _tag(words[-1].label)
            word = replace(word, label=f"I-{kind}" if begins else words[-1].label, score=words[-1].score)
        words.append(word)
    return words


def _chosen(group: Sequence[Piece], scores: Scores, text: str, names: Sequence[str]) -> _Word:
    """Give the likeliest label."""
    best = int(scores.argmax())
    return _Word(names[best], scores[best], group, text, group[0].start, group[-1].end, group[0].index)


def _grouped(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Put the pieces of words together."""
    groups: list[list[Piece]] = []
    for piece in pieces:
        if groups and piece.goes_on:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def _word(
    group: Sequence[Piece], how: Aggregation, names: Sequence[str], join: Callable[[Sequence[str]], str]
) -> _Word:
    """Give one label to the pieces of a word."""
    linked = [piece for piece in group if piece.is_link] or group
    judges = [scores for piece in linked for scores in (*piece.opening, piece.scores)]
    scores = judges[0]
    if len(judges) > 1 and how.strategy == "max":
        scores = max(judges, key=np.max)
    elif len(judges) > 1 and how.strategy == "average":
        scores = np.mean(judges, axis=0, dtype=np.float32)
    return _chosen(group, scores, join([piece.token for piece in group]) if how.legacy_subword else "", names)


def _in_iob2(words: Sequence[_Word]) -> list[_Word]:
    """Write labels of a scheme that marks ends (``E-``, ``S-``, ``L-``, ``U-``) by ``B-`` and ``I-``."""
    written: list[_Word] = []
    before = OUTSIDE
    for word in words:
        prefix, kind = split_tag(word.label)
        if prefix != OUTSIDE and not word.pieces[0].is_link:
            written.append(replace(word, label=f"I-{kind}"))  # goes on with the token before it, ended or not
            continue
        if prefix != OUTSIDE:
            begins = prefix in ("B", "S", "U") or before in ("E", "L", "S", "U")
            word = replace(word, label=f"{'B' if begins else 'I'}-{kind}")
        written.append(word)
        before = prefix
    return written


def _adjacent(words: Sequence[_Word]) -> list[list[_Word]]:
    """Put words of one type together until one begins anew."""
    groups: list[list[_Word]] = []
    for word in words:
        begins, kind = _tag(word.label)
        if groups and not begins and _tag(groups[-1][-1].label)[1] == kind:
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups


def _tag(label: str) -> tuple[bool, str]:
    """Return whether a label begins an entity, and its type; one without prefix goes on."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label


def _group(group: Sequence[_Word], how: Aggregation, join: Callable[[Sequence[str]], str]) -> Found:
    first = group[0].label
    score = group[0].score if len(group) == 1 else np.mean([word.score for word in group])
    return {
        "entity_group": first.split("-", 1)[-1] if how.legacy_subword else _tag(first)[1],
        "score": float(score),
        "word": join([word.text for word in group] if how.legacy_subword else _told(group)),
        "start": group[0].start,
        "end": group[-1].end,
    }


def _told(group: Sequence[_Word]) -> list[str]:
    """Return all tokens of a group, those of the blanks inside too: a text is decoded once, and whole."""
    tokens = [token for word in group for piece in word.pieces for token in (*piece.lead, piece.token)]
    return tokens[len(group[0].pieces[0].lead) :]


def _token(word: _Word) -> Found:
    return {
        "entity": word.label,
        "score": float(word.score),
        "index": word.index,
        "word": word.text,
        "start": word.start,
        "end": word.end,
    }


def checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return labels to leave out.

    Raises:
        TypeError: If they are one text in the place of a list.
    """
    if isinstance(labels, str):
        raise TypeError(f"ignore_labels must be a list of labels, got {labels!r}; write [{labels!r}]")
    return tuple(labels)


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Move the borders of a token to where its letters begin and end, and behind the marks on its last one.

    Marks are all of Unicode's category M, as the vowels of Devanagari and Thai, and what continues an emoji: its tone,
    and symbols behind a joiner (U+200D).

    Args:
        text: The text.
        start: First character by the tokenizer, which may be a blank; so may be the last.
        end: Behind the last one by the tokenizer, which may leave out marks.
    """
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    if start == end or (end < len(text) and text[end].isascii()):
        return start, end
    while 0 < end < len(text) and _goes_on(text[end], text[end - 1]):
        end += 1
    return start, end


def _goes_on(character: str, before: str) -> bool:
    """Return whether a character belongs to the one before it."""
    if character == JOINER or character in TONES:
        return True
    return unicodedata.category(character)[0] in ("MS" if before == JOINER else "M")


def merge_overlapping(found: Sequence[Found]) -> list[Found]:
    """Choose among entities of several windows that overlap, as transformers does: the longer, then the likelier.

    An entity longer than what windows have in common comes out in two parts.
    """
    merged: list[Found] = []
    for each in sorted(found, key=lambda entity: int(entity["start"])):
        if merged and merged[-1]["start"] <= each["start"] < merged[-1]["end"]:
            if (each["end"] - each["start"], each["score"]) > (
                merged[-1]["end"] - merged[-1]["start"],
                merged[-1]["score"],
            ):
                merged[-1] = each
        else:
            merged.append(each)
    return merged
