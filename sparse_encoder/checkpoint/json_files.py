"""Strict JSON: what two parsers could read in two ways is refused.

Knows nothing of what the values mean.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

from sparse_encoder.checkpoint.errors import ConfigError, LoadError
from sparse_encoder.checkpoint.paths import read_limited

MAX_JSON_BYTES = 1_000_000
MAX_DEPTH = 64
_MAX_DIGITS = 40  # tokenizer configs write "no limit" as the integer 10**30
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)  # the last quote is optional: it never fails, so never retries
_BRACKET = re.compile(r"[\[\]{}]")


def read_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES, error: type[LoadError] = ConfigError) -> Any:  # noqa: ANN401
    """Read a JSON file strictly.

    Args:
        path: The file.
        max_bytes: Largest size that is read.
        error: What to raise.

    Returns:
        The value; JSON decides its type.

    Raises:
        FileNotFoundError: If nothing is there.
        LoadError: As ``error``, if the file is too large, no plain UTF-8, no JSON, nested deeper than 64 levels, or
            has a key twice, NaN, an infinity, or a number beyond what a float or 40 digits hold.
    """
    return parse_json(read_limited(path, max_bytes=max_bytes, error=error), path=path, error=error)


def read_json_object(
    path: Path, *, max_bytes: int = MAX_JSON_BYTES, error: type[LoadError] = ConfigError
) -> dict[str, Any]:
    """Read a JSON file that holds an object; otherwise as :func:`read_json`."""
    value = read_json(path, max_bytes=max_bytes, error=error)
    if not isinstance(value, dict):
        raise error(f"must hold a JSON object, got {type(value).__name__}", path=path)
    return value


def parse_json(data: bytes, *, path: Path, error: type[LoadError] = ConfigError) -> Any:  # noqa: ANN401
    """Parse JSON strictly; ``path`` is only named in errors. Otherwise as :func:`read_json`."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as reason:
        raise error(f"must be UTF-8: {reason.reason} at byte {reason.start}", path=path) from reason
    if text.startswith("\ufeff"):
        raise error("must be UTF-8 without a byte order mark", path=path)
    _check_depth(text, path, error)
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_bounded_int,
        )
    except ValueError as reason:  # JSONDecodeError is one
        raise error(f"is not valid JSON: {reason}", path=path) from reason


def _check_depth(text: str, path: Path, error: type[LoadError]) -> None:
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise error(f"is nested deeper than {MAX_DEPTH} levels", path=path)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = sorted({key for key, _ in pairs if key in seen or seen.add(key)})  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[0][:200]!r} is there twice")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:50]} is too large")
    return value


def _bounded_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits is too large")
    return int(digits)
