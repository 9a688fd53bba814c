"""Words of a text, as BM25 counts them; knows no vocabulary and no weights."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORD = re.compile(r"\w+")

STOP_WORDS = {
    # The list of Lucene's StandardAnalyzer up to version 7, https://lucene.apache.org.
    "english": frozenset(
        re.findall(
            r"\w+",
            "a an and are as at be but by for if in into is it no not of on or such that the their then there these "
            "they this to was will with",
        )
    ),
}
"""Words that say nothing about what a text is about, by language."""


def stop_words_of(choice: str | Iterable[str] | None) -> frozenset[str]:
    """Return the stop words of a language, the given ones in lower case, or none.

    Raises:
        TypeError: If a word is no text.
        ValueError: If there is no list for the language.
    """
    if choice is None:
        return frozenset()
    if isinstance(choice, str):
        if choice not in STOP_WORDS:
            raise ValueError(f"no stop words for {choice!r}; choose from {sorted(STOP_WORDS)} or give the words")
        return STOP_WORDS[choice]
    words = list(choice)
    for word in words:
        if not isinstance(word, str):
            raise TypeError(f"stop words must be texts, got {word!r}")
    return frozenset(word.lower() for word in words)


def words_of(text: str, stop_words: frozenset[str]) -> list[str]:
    """Cut a text into runs of letters, digits and underscores, in lower case, without stop words."""
    return [word for word in _WORD.findall(text.lower()) if word not in stop_words]
