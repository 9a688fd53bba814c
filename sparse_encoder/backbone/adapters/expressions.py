r"""Regular expressions of files, of a kind that is matched in bounded time. Any other is refused, and never run.

That kind: letters, digits, ``_`` and ``-``, the dot, ``\.``, ``\d``, ``\w`` and sets like ``[0-5]``, each perhaps
with ``*``, ``+`` or ``?``; groups of alternatives without a sign behind; ``^`` at the start and ``$`` at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

_LONGEST = 1000
_MOST_ALTERNATIVES = 256
_GROUP = re.compile(r"(?<!\\)\((?:\?:)?([^()]*)\)(.?)")
_PIECE = re.compile(r"(\[\^?[A-Za-z0-9_.-]+\]|\\[.dw]|[A-Za-z0-9_.-])([*+?]?)")


class _Piece(NamedTuple):
    """One place of an expression."""

    one: re.Pattern[str]
    """What a single character must be."""
    times: str


class BoundedExpression:
    """An expression that takes time in the order of its length times that of the text.

    Args:
        expression: The expression.

    Raises:
        ValueError: If it is of another kind.
    """

    def __init__(self, expression: str) -> None:
        self._alternatives = [_pieces(each) for each in _without_groups(expression)]

    def matches(self, text: str) -> bool:
        """Say whether it matches the whole text."""
        return any(self._is_reached(each, text, {0}) for each in self._alternatives)

    def matches_end(self, name: str) -> bool:
        """Say whether it matches a dotted name, or what follows one of its dots, to the end."""
        starts = {0, *(place + 1 for place, sign in enumerate(name) if sign == ".")}
        return any(self._is_reached(each, name, starts) for each in self._alternatives)

    @staticmethod
    def _is_reached(pieces: tuple[bool, tuple[_Piece, ...]], text: str, starts: set[int]) -> bool:
        anchored, places = pieces
        reached = {0} & starts if anchored else starts
        for piece in places:
            reached = _step(piece, text, reached)
        return len(text) in reached


def _step(piece: _Piece, text: str, reached: set[int]) -> set[int]:
    """Return where one place of an expression leads to."""
    after = set() if piece.times in ("", "+") else set(reached)
    for start in sorted(reached):
        place = start
        while place < len(text) and piece.one.fullmatch(text[place]):
            place += 1
            if place in after and piece.times in ("*", "+"):
                break  # from here on all has been seen
            after.add(place)
            if piece.times in ("", "?"):
                break
    return after


def _without_groups(expression: str) -> Iterator[str]:
    """Yield an expression's alternatives, none with a group in it."""
    if len(expression) > _LONGEST:
        raise ValueError(f"an expression may have {_LONGEST} characters, got {len(expression)}")
    whole, count = [f"({expression})"], 0
    while whole:
        current = whole.pop()
        group = _GROUP.search(current)
        if group is None:
            yield current
            count += 1
            continue
        if group.group(2) and group.group(2) in "*+?{":
            raise ValueError(f"{expression!r:.80} repeats a group")
        inner = group.group(1).split("|")
        whole += [f"{current[: group.start()]}{each}{current[group.start(2) :]}" for each in reversed(inner)]
        if len(whole) + count > _MOST_ALTERNATIVES:
            raise ValueError(f"{expression!r:.80} has too many alternatives")


def _pieces(expression: str) -> tuple[bool, tuple[_Piece, ...]]:
    """Split an expression without groups into its places; says first whether it holds from the start alone."""
    anchored = expression.startswith("^")
    rest = expression.removeprefix("^").removesuffix("$")
    places = []
    while rest:
        piece = _PIECE.match(rest)
        if piece is None:
            raise ValueError(f"{expression!r:.80} has more than plain places: {rest!r:.20}")
        places.append(_Piece(_compiled(piece.group(1)), piece.group(2)))
        rest = rest[piece.end() :]
    return anchored, tuple(places)


@lru_cache(maxsize=256)
def _compiled(place: str) -> re.Pattern[str]:
    try:
        return re.compile(place)
    except re.error as reason:
        raise ValueError(f"{place!r:.80} is no set of characters: {reason}") from reason


@lru_cache(maxsize=1024)
def bounded(expression: str) -> BoundedExpression | None:
    """Return an expression that may be run; None if it is of another kind."""
    try:
        return BoundedExpression(expression)
    except ValueError:
        return None
