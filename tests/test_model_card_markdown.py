from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_encoder.model_card_markdown import (
    clean,
    code,
    describe,
    duration,
    escape,
    fence,
    number,
    one_line,
    sentence_list,
    setting,
    shorten,
    table,
    with_article,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a | b", r"a \| b"),
        (r"a \| b", r"a &#92;\| b"),
        ("one\ntwo\r\nthree", "one<br>two<br>three"),
        ("<script>&", "&lt;script&gt;&amp;"),
        ("`code` *bold* [link]", "&#96;code&#96; &#42;bold&#42; &#91;link&#93;"),
        ("snake_case _it_ __init__", "snake_case &#95;it&#95; &#95;&#95;init&#95;&#95;"),
        ("naïve 中文 🙂", "naïve 中文 🙂"),
        ("nul\x00 bell\x07", "nul\ufffd bell\ufffd"),
        ("half \ud800 pair", "half ? pair"),
    ],
)
def test_texts_are_shown_as_they_are(text: str, shown: str) -> None:
    assert escape(text) == shown


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_text_fits_into_a_cell(text: str) -> None:
    cell = code(text)
    assert cell.encode("utf-8")
    assert len(cell.splitlines()) == 1
    assert "|" not in cell.replace(r"\|", "")
    assert "<" not in cell.removeprefix("<code>").removesuffix("</code>").replace("<br>", "")
    assert clean(clean(text)) == clean(text)
    assert "\n" not in one_line(text)


def test_long_texts_are_cut() -> None:
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"
    assert code("x" * 5000) == f"<code>{'x' * 999}…</code>"


class Image:
    width, height = 3, 4


class Opaque:
    def __repr__(self) -> str:
        raise AssertionError("what is not known is told by its kind alone")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        ("text", "text"),
        (True, "True"),
        (0.25, "0.25"),
        (1 << 2000, "integer of 2001 bits"),
        (b"\x00\xff", "2 bytes"),
        (np.float32(0.5), "0.5"),
        (np.str_("word"), "word"),
        (torch.tensor(3), "3"),
        (torch.zeros(2, 5), "Tensor (2, 5)"),
        (np.zeros((2, 5)), "ndarray (2, 5)"),
        (np.datetime64("2024-05-06"), "2024-05-06"),
        (datetime.datetime(2024, 5, 6), "2024-05-06 00:00:00"),
        (Decimal("1.50"), "1.50"),
        ([1, "two", None], "[1, 'two', None]"),
        ((1,), "(1)"),
        ({"a": [1, {"b": 2}]}, "{'a': [1, {'b': 2}]}"),
        ([[[[[1]]]]], "[[[[…]]]]"),
        (list(range(12)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …]"),
        (Image(), "image of 3x4 px"),
        (Opaque(), "Opaque"),
        ([Opaque()], "[Opaque]"),
    ],
)
def test_values_of_all_kinds_are_described(value: object, shown: str) -> None:
    assert describe(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        (5e-05, "5e-05"),
        ("linear", "linear"),
        ("", "<code>''</code>"),
        ("query: \n`", "<code>'query: &#92;n&#96;'</code>"),
        ({"a": "b"}, "<code>{'a': 'b'}</code>"),
        ([], "<code>&#91;&#93;</code>"),
    ],
)
def test_settings(value: object, shown: str) -> None:
    assert setting(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.81546, "0.8155"), (1.0, "1.0"), (3, "3"), (0.00003, "3e-05"), (0.0, "0.0"), (float("nan"), "nan")],
)
def test_numbers(value: float, shown: str) -> None:
    assert number(value) == shown


def test_tables_and_fences() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| :--- | :--- |\n| 1 | 2 |"
    assert table(["a"], [], align="center") == "| a |\n| :---: |"
    assert fence("x = 1", "python") == "```python\nx = 1\n```"
    assert fence("````\nx") == "`````\n````\nx\n`````"


def test_words() -> None:
    assert [sentence_list(items) for items in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b, and c",
    ]
    assert [duration(seconds) for seconds in (0.04, 59, 90, 7200)] == [
        "0.0 seconds",
        "59.0 seconds",
        "1.5 minutes",
        "2.0 hours",
    ]


@pytest.mark.parametrize("count", [8, 11, 18, 80, 800, 8192, 11_000, 18_500, 80_000, 899_000])
def test_numbers_that_begin_with_a_vowel(count: int) -> None:
    assert with_article(count) == f"an {count}"


@pytest.mark.parametrize("count", [1, 7, 9, 28, 108, 110, 118, 180, 1100, 1800, 18 * 10**6 - 10**6, 30522])
def test_numbers_that_do_not(count: int) -> None:
    assert with_article(count) == f"a {count}"
