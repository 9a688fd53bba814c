"""Text and tables as Markdown that means what was meant, whatever the text; knows nothing of models or data."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

LONGEST_TEXT = 1000
"""Characters of a text that a card shows; as in sentence-transformers' cards."""
MOST_ITEMS = 10
"""Items of a list or dict that a card shows."""
DEEPEST = 4
"""Levels of nested lists and dicts that a card shows."""
LONGEST_INTEGER = 1000
"""Bits of a whole number that a card shows."""

_MARKDOWN = {ord(char): f"&#{ord(char)};" for char in "`*[]~\\$"}
_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # not within a word, where it is only itself
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x85\u2028\u2029\ufffe\uffff]")
_NEWLINE = re.compile(r"\r\n|\r|\n")
_PLAIN = re.compile(r"[\w./:@+ -]{1,100}")


def clean(text: str) -> str:
    """Return a text without control characters and halves of surrogate pairs, which no UTF-8 file or YAML holds."""
    return _CONTROL.sub("\ufffd", text.encode("utf-8", "replace").decode("utf-8"))


def shorten(text: str, limit: int = LONGEST_TEXT) -> str:
    """Cut a text to a number of characters, with a mark where something is left out."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def escape(text: str) -> str:
    """Return a text that Markdown, HTML and a cell of a table show as it is, on one line."""
    shown = html.escape(clean(text), quote=False).translate(_MARKDOWN)
    shown = _UNDERSCORE.sub("&#95;", shown)
    return _NEWLINE.sub("<br>", shown.replace("|", r"\|"))


def code(text: str) -> str:
    """Return a text in the type of code; unlike backticks this holds any text, also within tables."""
    return f"<code>{escape(shorten(text))}</code>"


def one_line(text: str, limit: int = LONGEST_TEXT) -> str:
    """Return a text on one line, for headings and lists."""
    return " ".join(clean(shorten(text, limit)).split())


def sentence_list(items: Sequence[str]) -> str:
    """Join words as a sentence does: "a", "a and b", "a, b, and c"."""
    if len(items) < 3:
        return " and ".join(items)
    return f"{', '.join(items[:-1])}, and {items[-1]}"


def number(value: float, digits: int = 4) -> str:
    """Return a number, rounded; so small that rounding leaves nothing, with as many significant digits."""
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    rounded = round(value, digits)
    return f"{value:.{digits}g}" if value and not rounded else str(rounded)


def setting(value: object) -> str:
    """Return the value of a setting: a plain one as it is, any other as code."""
    if value is None or isinstance(value, bool | int | float):
        return describe(value)
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        return code(repr(shorten(value)))
    return value if isinstance(value, str) else code(describe(value))


def describe(value: Any, depth: int = 0) -> str:  # noqa: ANN401  (anything a dataset or a setting can hold)
    """Return what a value is in a few words: texts and numbers as they are, what is large by its kind and size."""
    if isinstance(value, int) and value.bit_length() > LONGEST_INTEGER:
        return f"integer of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float | date | time | timedelta | Decimal):
        return str(value)
    if isinstance(value, str):
        return shorten(value) if depth == 0 else repr(shorten(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _collection(value, depth)
    if is_array(value):
        return describe(value.item(), depth) if not len(value.shape) else f"{_name(value)} {tuple(value.shape)}"
    if is_image(value):
        return f"image of {value.width}x{value.height} px"
    return _name(value)


def is_array(value: Any) -> bool:  # noqa: ANN401  (as above)
    """Return whether a value is a tensor or an array, or one number of them."""
    return isinstance(getattr(value, "shape", None), tuple) and hasattr(value, "dtype") and hasattr(value, "item")


def is_image(value: Any) -> bool:  # noqa: ANN401  (as above)
    """Return whether a value is a picture of so many pixels."""
    return isinstance(getattr(value, "width", None), int) and isinstance(getattr(value, "height", None), int)


def _collection(value: Any, depth: int) -> str:  # noqa: ANN401  (a mapping, list, tuple or set)
    if depth >= DEEPEST:
        return "…"
    more = ["…"] if len(value) > MOST_ITEMS else []
    if isinstance(value, Mapping):
        pairs = [(describe(key, depth + 1), describe(each, depth + 1)) for key, each in _first(value.items())]
        return f"{{{', '.join([*(f'{key}: {each}' for key, each in pairs), *more])}}}"
    left, right = "()" if isinstance(value, tuple) else "{}" if isinstance(value, set | frozenset) else "[]"
    return f"{left}{', '.join([*(describe(each, depth + 1) for each in _first(value)), *more])}{right}"


def _first(items: Iterable[Any]) -> list[Any]:  # as above
    return [each for each, _ in zip(items, range(MOST_ITEMS), strict=False)]


def _name(value: object) -> str:
    return type(value).__name__


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, align: str = "left") -> str:
    """Write a table.

    Args:
        headers: One per column.
        rows: As many cells each; what they hold is Markdown already.
        align: ``left`` or ``center``.
    """
    rule = ":---" if align == "left" else ":---:"
    lines = [headers, [rule] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def indent(text: str, spaces: int = 2) -> str:
    """Move every line to the right, into an item of a list."""
    return "\n".join(f"{' ' * spaces}{line}".rstrip() for line in text.split("\n"))


def fence(text: str, language: str = "") -> str:
    """Return a block of code, fenced by more backticks than it holds."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    marks = "`" * (longest + 1)
    return f"{marks}{language}\n{clean(text).strip()}\n{marks}"


def folded(text: str) -> str:
    """Return a part that is shown when the reader asks for it."""
    return f"<details><summary>Click to expand</summary>\n\n{text}\n\n</details>"


def duration(seconds: float) -> str:
    """Return a time in words: "12.3 seconds", "4.5 minutes", "2.0 hours"."""
    for unit, size in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def with_article(count: int) -> str:
    """Return a number behind "a" or "an", as it is spoken."""
    leading = int(f"{count:,}".split(",")[0])  # 18 of 18,000
    return f"an {count}" if leading in (8, 11, 18) or leading // 10 == 8 or leading // 100 == 8 else f"a {count}"
