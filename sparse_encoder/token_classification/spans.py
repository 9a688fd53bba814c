"""Texts with marked stretches of characters, a JSON object a line, turned into words with tags."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sparse_encoder.token_classification.label_names import sorted_names
from sparse_encoder.token_classification.tags import Entity, write_tags

if TYPE_CHECKING:
    from datasets import Dataset

_WORDS = re.compile(r"[^\W_]+|[^\s]")
_JOINERS = "\u200c\u200d"
"""Invisible characters within words of some scripts."""


class Span(NamedTuple):
    """A stretch of a text.

    Attributes:
        start: Its first character, from 0, in Unicode code points.
        end: The character behind its last one.
        label: What it is.
    """

    start: int
    end: int
    label: str


def words_of(text: str, borders: Iterable[int] = ()) -> list[tuple[int, int]]:
    """Cut a text into words: letters and digits that belong together, with their marks, and every other sign alone.

    Marks (accents, vowel signs and points of any script) stay with the letter before them.

    Args:
        text: The text.
        borders: Places where a word ends in any case.

    Returns:
        Begin and end of each word, in characters.
    """
    whole: list[tuple[int, int]] = []
    for match in _WORDS.finditer(text):
        begin, end = match.span()
        if whole and whole[-1][1] == begin and _goes_on(text, whole[-1], begin):
            whole[-1] = (whole[-1][0], end)
        else:
            whole.append((begin, end))
    cuts = sorted(set(borders))
    words = []
    for begin, end in whole:
        for cut in cuts[bisect_right(cuts, begin) : bisect_left(cuts, end)]:
            words.append((begin, cut))
            begin = cut
        words.append((begin, end))
    return words


def _goes_on(text: str, before: tuple[int, int], begin: int) -> bool:
    """Return whether what begins at a place belongs to the word that ends there."""
    if _is_mark(text[begin]):
        return True
    return text[begin].isalnum() and text[before[0]].isalnum() and _is_mark(text[begin - 1])


def _is_mark(sign: str) -> bool:
    return sign in _JOINERS or unicodedata.category(sign).startswith("M")


def tags_of_spans(text: str, spans: Iterable[Span], *, scheme: str = "IOB2") -> tuple[list[str], list[str]]:
    """Turn marked stretches of a text into words and their tags; a word that a stretch ends in is cut there.

    Args:
        text: The text.
        spans: They may not overlap.
        scheme: Of the tags.

    Returns:
        The words, and a tag for each.

    Raises:
        ValueError: If a span is beyond the text, has no word in it, or overlaps another.
    """
    chosen = sorted(spans)
    for span in chosen:
        if not 0 <= span.start < span.end <= len(text):
            raise ValueError(f"a span must be within the {len(text)} characters of its text, got {tuple(span)}")
    for one, other in zip(chosen, chosen[1:], strict=False):
        if other.start < one.end:
            raise ValueError(f"spans may not overlap, got {tuple(one)} and {tuple(other)}")
    words = words_of(text, [border for span in chosen for border in span[:2]])
    begins = [begin for begin, _ in words]
    entities = []
    for span in chosen:
        first, behind = bisect_left(begins, span.start), bisect_left(begins, span.end)
        if first == behind:
            raise ValueError(f"a span must have a word in it, got {tuple(span)}: {text[span.start : span.end]!r}")
        entities.append(Entity(span.label, first, behind))
    return [text[begin:end] for begin, end in words], write_tags(entities, len(words), scheme=scheme)


def load_spans(
    path: str | os.PathLike[str],
    *,
    text_key: str = "text",
    spans_key: str = "spans",
    scheme: str = "IOB2",
    label_names: Sequence[str] | None = None,
    encoding: str = "utf-8-sig",
) -> Dataset:
    """Read a file of JSON objects, a line each: a text and its spans, each with ``start``, ``end`` and ``label``.

    A span may also be a list of these three.

    Args:
        path: The file.
        text_key: Key of the text.
        spans_key: Key of the spans.
        scheme: Of the tags.
        label_names: Names of the tags in the order of their numbers; without them they are sorted, ``O`` first.
        encoding: Of the file; the default is UTF-8 with or without a byte order mark.

    Returns:
        ``id`` (the number of the text, as text), ``tokens`` and ``ner_tags`` as class labels.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has no text, is not in its encoding, or a line is not as said; it names the line.
    """
    if label_names is not None and not label_names:
        raise ValueError("label_names must have a name, got none; leave it out to number the tags that occur")
    from datasets import ClassLabel, Dataset, Features, Sequence, Value

    words: list[list[str]] = []
    tags: list[list[str]] = []
    for number, line in _lines(Path(path), encoding):
        try:
            found = _read(json.loads(line), text_key, spans_key)
            own, own_tags = tags_of_spans(*found, scheme=scheme)
        except ValueError as reason:
            raise ValueError(f"{path}, line {number}: {reason}") from reason
        words.append(own)
        tags.append(own_tags)
    if not words:
        raise ValueError(f"{path} has no text")
    names = list(label_names or sorted_names(tag for row in tags for tag in row))
    unknown = sorted({tag for row in tags for tag in row} - set(names))
    if unknown:
        raise ValueError(f"{path}: unknown tags {unknown}; choose from {names}")
    numbers = {name: number for number, name in enumerate(names)}
    columns = {
        "id": [str(number) for number in range(len(words))],
        "tokens": words,
        "ner_tags": [[numbers[tag] for tag in row] for row in tags],
    }
    features = Features(
        {"id": Value("string"), "tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=names))}
    )
    return Dataset.from_dict(columns, features=features)


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers."""
    try:
        with path.open(encoding=encoding) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as reason:
        raise ValueError(f"{path} is not {encoding}: {reason}; pass its encoding") from reason


def _read(row: Any, text_key: str, spans_key: str) -> tuple[str, list[Span]]:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(row, Mapping) or not isinstance(row.get(text_key), str):
        raise ValueError(f"there must be an object with a text under {text_key!r}, got {row!r:.80}")
    if not isinstance(row.get(spans_key), list):
        raise ValueError(f"there must be a list under {spans_key!r}, got {row.get(spans_key)!r:.80}")
    spans = []
    for span in row[spans_key]:
        values = [span.get(key) for key in ("start", "end", "label")] if isinstance(span, Mapping) else span
        if (
            not isinstance(values, list)
            or len(values) != 3
            or not all(isinstance(value, int) and not isinstance(value, bool) for value in values[:2])
            or not isinstance(values[2], str)
        ):
            raise ValueError(f"a span must have start and end as whole numbers, and a label, got {span!r:.80}")
        spans.append(Span(*values))
    return row[text_key], spans
