"""Sizes of files as people write them. Knows no files."""

from __future__ import annotations

import re

_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]i?b)\s*", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def size_in_bytes(size: int | str) -> int:
    """Return the bytes that a size stands for.

    Args:
        size: Bytes as a number, or a text of a number and a unit: KB, MB, GB and TB are powers of 1000; KiB, MiB, GiB
            and TiB powers of 1024. Case does not matter: ``"5GB"``, ``"1.5 kb"``, ``"200MiB"``.

    Raises:
        ValueError: If it is negative, or no number with a unit.
        TypeError: If it is neither a whole number nor a text.
    """
    if isinstance(size, bool) or not isinstance(size, (int, str)):
        raise TypeError(f"a size must be a whole number of bytes or a text as '5GB', got {size!r}")
    if isinstance(size, int):
        if size < 0:
            raise ValueError(f"a size must be 0 or more bytes, got {size}")
        return size
    found = _SIZE.fullmatch(size) if size.isascii() and len(size) <= 100 else None
    if found is None:
        raise ValueError(
            "a size must be a number and a unit, one of KB, MB, GB, TB, KiB, MiB, GiB, TiB, as '5GB';"
            f" got {size[:100]!r}"
        )
    number, unit = float(found[1]), found[2].lower()
    return int(number * (1024 if "i" in unit else 1000) ** _POWERS[unit[0]])
