"""Runs the Rust tokenizer for several threads and in bounded time: checks, mends and cuts what goes in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, pairwise
from typing import Any

from tokenizers import Encoding
from tokenizers import Tokenizer as Backend

from sparse_encoder.tokenizer_check import rust_errors
from sparse_encoder.tokenizer_words import SpacedWords

CHARACTERS_PER_TOKEN = (16, 128, 1024)
"""A text is first cut to this many characters for each token that may stay, and to more if they did not give enough."""
LEAST_CHARACTERS = 4096
"""No text is cut shorter than this."""
BLANKS = " \n\t\r"
BLANK_WITHIN = 1024
"""A cut is moved back by up to this many characters to a blank: beyond the length of a word that WordPiece may know."""


class Engine:
    """Encode lists of texts; what the backend is set to is chosen anew by each call.

    Args:
        backend: The tokenizer proper; its truncation and padding are taken over.
    """

    def __init__(self, backend: Backend) -> None:
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        self._gate = threading.Condition()
        self._users = self._waiting = 0
        self._setting: tuple[int | None, str, int, bool] = (None, "right", 0, False)
        self._words = SpacedWords(backend)

    @contextmanager
    def truncation(
        self, limit: int | None, side: str = "right", stride: int = 0, *, words: bool = False
    ) -> Iterator[Backend]:
        """Set the truncation and keep it: threads that want the same go on, others wait until those are done.

        While somebody waits nobody else is let in, so that each has its turn.

        Args:
            limit: Most tokens; None for no truncation.
            side: Which end is truncated.
            stride: Tokens that windows have in common.
            words: Whether words come alone: then each has a blank before it if the tokenizer needs one.
        """
        wanted = (limit, side, stride, words and self._words.needed)
        with self._gate:
            self._waiting += 1
            self._gate.wait_for(lambda: not self._users or (self._setting == wanted and self._waiting == 1))
            self._waiting -= 1
            if not self._users:
                if limit is None:
                    self.backend.no_truncation()
                else:
                    self.backend.enable_truncation(limit, stride=stride, direction=side)
                if wanted[-1]:
                    self._words.switch(True)
                self._setting = wanted
            self._users += 1
        try:
            yield self.backend
        finally:
            with self._gate:
                self._users -= 1
                if not self._users and self._setting[-1]:  # whoever looks at the backend finds it as it came
                    self._words.switch(False)
                    self._setting = (*self._setting[:-1], False)
                self._gate.notify_all()

    def encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        limit: int | None,
        side: str = "right",
        add_special_tokens: bool = True,
        details: bool = False,
    ) -> list[Encoding]:
        """Encode texts or pairs, cut as :data:`CHARACTERS_PER_TOKEN` says.

        Args:
            texts: The texts.
            pairs: Second texts, as many.
            limit: Most tokens, special ones included; None neither cuts nor truncates.
            side: Which end is truncated.
            add_special_tokens: Put special tokens around.
            details: Also find offsets and words, which takes longer.

        Raises:
            TokenizerError: If the backend fails on a text.
        """
        with self.truncation(limit, side) as backend:
            function = partial(_run, backend.encode_batch if details else backend.encode_batch_fast, add_special_tokens)
            sizes = [] if limit is None else [max(LEAST_CHARACTERS, limit * count) for count in CHARACTERS_PER_TOKEN]
            if limit is None or max(map(len, chain(texts, pairs or ())), default=0) <= sizes[0]:
                return function(texts, pairs)
            if pairs is not None or side == "left":
                seconds = None if pairs is None else [cut(text, sizes[-1], side) for text in pairs]
                return function([cut(text, sizes[-1], side) for text in texts], seconds)
            encodings = function([cut(text, sizes[0]) for text in texts], None)
            for size, larger in pairwise(sizes):
                short = [row for row, found in enumerate(encodings) if len(found) < limit and len(texts[row]) > size]
                again = function([cut(texts[row], larger) for row in short], None) if short else []
                for row, found in zip(short, again, strict=True):
                    encodings[row] = found
            return encodings


def _run(
    function: Callable[..., list[Encoding]], add_special_tokens: bool, texts: Sequence[str], pairs: Sequence[str] | None
) -> list[Encoding]:
    """Encode strings; only those with surrogates, which Rust refuses, are looked at one by one."""
    with rust_errors("a text cannot be encoded"):
        try:
            return function(_inputs(texts, pairs), add_special_tokens=add_special_tokens)
        except TypeError:
            texts = [well_formed(text) for text in texts]
            pairs = None if pairs is None else [well_formed(text) for text in pairs]
            return function(_inputs(texts, pairs), add_special_tokens=add_special_tokens)


def _inputs(texts: Sequence[str], pairs: Sequence[str] | None) -> list[Any]:  # Any: texts or pairs of texts
    return list(texts) if pairs is None else list(zip(texts, pairs, strict=True))


def strings(texts: Iterable[str], name: str) -> list[str]:
    """Return the texts as a list.

    Raises:
        TypeError: If it is a single string or no list, or an item is not a string, naming its place.
    """
    if isinstance(texts, (str, bytes, dict)) or not isinstance(texts, Iterable):
        raise TypeError(f"{name} must be a list of strings, got {type(texts).__name__}")
    items = list(texts)
    if not set(map(type, items)) <= {str}:
        for place, item in enumerate(items):
            if not isinstance(item, str):
                raise TypeError(f"{name}[{place}] must be a string, got {type(item).__name__}: {item!r:.80}")
    return items


def well_formed(text: str) -> str:
    """Join surrogates that make a character, and replace those that do not by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def cut(text: str, size: int, side: str = "right") -> str:
    """Keep about ``size`` characters of a text, up to a blank if there is one nearby.

    Args:
        text: The text.
        size: Most characters that stay.
        side: Which end is cut off.
    """
    if len(text) <= size:
        return text
    if side == "left":
        begin = len(text) - size
        blanks = [place for blank in BLANKS if (place := text.find(blank, begin, begin + BLANK_WITHIN)) >= 0]
        return text[min(blanks, default=begin) :]
    end = max(text.rfind(blank, max(0, size - BLANK_WITHIN), size) for blank in BLANKS)
    return text[: end if end > 0 else size]
