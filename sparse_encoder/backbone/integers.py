"""Integers of any kind: Python's, NumPy's, and torch's of no axes."""

from __future__ import annotations

from operator import index


def plain_integer(value: object) -> int | None:
    """Return any kind of integer as one of Python's; None for what is none, as truth values are not."""
    if isinstance(value, bool):
        return None
    try:
        return index(value)  # type: ignore[arg-type]
    except TypeError:
        return None
