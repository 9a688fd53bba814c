from __future__ import annotations

from typing import Any

import pytest

from sparse_encoder.checkpoint import size_in_bytes


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, 0),
        (123, 123),
        ("0KB", 0),
        ("5GB", 5_000_000_000),
        ("1.5kb", 1500),
        (" 5 Gb ", 5_000_000_000),
        ("10TB", 10**13),
        ("200MiB", 200 * 2**20),
        ("1.5 gib", 3 * 2**29),
        (".5KiB", 512),
        ("7.mb", 7_000_000),
    ],
)
def test_a_size_is_a_number_or_a_number_with_a_unit(size: int | str, expected: int) -> None:
    assert size_in_bytes(size) == expected


@pytest.mark.parametrize(
    "size", ["", "5", "GB", "5G", "5 GBs", "-5GB", "1e3KB", "5,5GB", "٣KB", "nanGB", "9" * 400 + "GB"]
)
def test_another_text_is_refused_with_the_units(size: str) -> None:
    with pytest.raises(ValueError, match="a size must be a number and a unit, one of KB, MB, GB, TB, KiB"):
        size_in_bytes(size)


@pytest.mark.parametrize(("size", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError), (None, TypeError)])
def test_a_number_of_bytes_is_whole_and_not_negative(size: Any, error: type[Exception]) -> None:  # noqa: ANN401
    with pytest.raises(error, match="a size must be"):
        size_in_bytes(size)
