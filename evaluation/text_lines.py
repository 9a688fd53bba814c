"""Text files line by line, so that every error names the file and the line; knows nothing of what the lines mean."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sparse_encoder.checkpoint import LoadError, open_regular


def line_error(path: Path, number: int, message: str) -> LoadError:
    """Make the error about one line."""
    return LoadError(message, path=f"{path}:{number}")


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file with their numbers, from 1; empty lines are skipped.

    One line is held at a time. A name that ends in ``.gz`` is read through gzip.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is none.
        LoadError: If it is no regular file, a line is not UTF-8, or the compressed data is damaged.
    """
    with ExitStack() as stack:
        file: Any = stack.enter_context(open_regular(path))  # Any: a raw or a gzip file, both yield lines of bytes
        if path.suffix == ".gz":
            file = stack.enter_context(gzip.GzipFile(fileobj=file))
        number = 0
        try:
            for number, raw in enumerate(file, start=1):  # the number is named in the errors below
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if line.strip():
                    yield number, line
        except UnicodeDecodeError as reason:
            raise line_error(path, number, f"must be UTF-8: {reason.reason}") from reason
        except (EOFError, gzip.BadGzipFile, zlib.error) as reason:
            raise line_error(path, number + 1, f"the compressed data is damaged: {reason}") from reason


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:  # Any: JSON decides the types of the values
    """Yield the objects of a JSON-lines file with the numbers of their lines; otherwise as :func:`numbered_lines`.

    Raises:
        LoadError: If a line is no JSON object.
    """
    for number, line in numbered_lines(path):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as reason:  # ValueError: syntax, or an integer of thousands of digits
            raise line_error(path, number, f"must be one JSON object: {reason}") from reason
        if not isinstance(value, dict):
            raise line_error(path, number, f"must be one JSON object, got {type(value).__name__}")
        yield number, value


def text_field(value: dict[str, Any], names: tuple[str, ...], *, path: Path, number: int) -> str:
    """Return the first of some fields that an object has, as a text; integers are taken for ids.

    Args:
        value: An object of a JSON-lines file.
        names: Names the field may have, in order of preference.
        path: For the error.
        number: For the error.

    Raises:
        LoadError: If it has none of them, it has another type, or it holds half a character, as no text file can.
    """
    name = next((name for name in names if name in value), None)
    if name is None:
        raise line_error(path, number, f"must have the field {' or '.join(map(repr, names))}, got {sorted(value)}")
    found = value[name]
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise line_error(path, number, f"field {name!r} must be a text, got {type(found).__name__}")
    text = str(found)
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise line_error(path, number, f"field {name!r} holds half of a surrogate pair")
    return text


def add_once(found: dict[str, str], name: str, text: str, *, path: Path, number: int) -> None:
    """Put a text under its id.

    Raises:
        LoadError: If the id is empty or has come before.
    """
    if not name:
        raise line_error(path, number, "the id must not be empty")
    if name in found:
        raise line_error(path, number, f"the id {name!r} is there twice")
    found[name] = text
