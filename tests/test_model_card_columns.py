from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_encoder.model_card_columns import ColumnFacts, TokenCounter, look_at_rows


class Image:
    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height


def facts(*values: object, count_tokens: TokenCounter | None = None) -> ColumnFacts:
    return look_at_rows([{"x": value} for value in values], count_tokens).columns["x"]


@pytest.mark.parametrize(
    ("values", "kind", "details"),
    [
        (["a", "bcd", ""], "string", {"min": "0 characters", "mean": "1.33 characters", "max": "3 characters"}),
        ([0.25, 0.5, 0.81], "float", {"min": "0.25", "mean": "0.52", "max": "0.81"}),
        ([1e-5, 3e-5], "float", {"min": "1e-05", "mean": "2e-05", "max": "3e-05"}),
        ([float("nan"), 2.0, float("inf")], "float", {"min": "2", "mean": "2", "max": "2"}),
        ([float("nan")], "float", {}),
        ([1, 0, 0, 0], "int", {"0": "~75.00%", "1": "~25.00%"}),
        ([7, 7], "int", {"7": "100.00%"}),
        ([True, False], "bool", {"False": "~50.00%", "True": "~50.00%"}),
        (list(range(11)), "int", {"min": "0", "mean": "5", "max": "10"}),
        ([1 << 2000, 5], "int", {"5": "100.00%"}),
        ([["a"], ["b", "c"]], "list", {"min": "1 elements", "mean": "1.5 elements", "max": "2 elements"}),
        ([[[1, 2], []], [[3], None]], "list", {"size": "2 elements"}),
        ([b"abc", b"a"], "bytes", {"min": "1 bytes", "mean": "2 bytes", "max": "3 bytes"}),
        ([torch.zeros(2, 3), np.zeros(6)], "array", {"size": "6 elements"}),
        ([torch.tensor(0.5), np.float32(1.5)], "float", {"min": "0.5", "mean": "1", "max": "1.5"}),
        ([Image(2, 3), Image(2, 4)], "image", {"min": "6 pixels", "mean": "7 pixels", "max": "8 pixels"}),
        ([{"bytes": b"", "path": None}], "dict", {}),
        ([None, None], "missing", {"missing": "2 rows"}),
        (
            ["ab", None],
            "string",
            {"min": "2 characters", "mean": "2 characters", "max": "2 characters", "missing": "1 rows"},
        ),
        ([1, 0.5], "float", {"min": "0.5", "mean": "0.75", "max": "1"}),
        (["ab", 3, 0.5], "float or int or string", {}),
        ([object()], "object", {}),
    ],
)
def test_columns(values: list[Any], kind: str, details: dict[str, str]) -> None:
    assert facts(*values) == ColumnFacts(kind=kind, details=details)


def test_tokens_are_counted_if_something_counts_them() -> None:
    found = facts("one two", "three", None, count_tokens=lambda texts: [len(text.split()) for text in texts])
    assert found.details == {"min": "1 tokens", "mean": "1.5 tokens", "max": "2 tokens", "missing": "1 rows"}


def test_texts_are_cleaned_before_they_are_counted() -> None:
    seen: list[str] = []

    def count(texts: list[str]) -> list[int]:
        seen.extend(texts)
        return [1] * len(texts)

    facts("a\ud800b\x00", count_tokens=count)
    assert seen == ["a?b\ufffd"]


def test_only_the_first_rows_are_read() -> None:
    read: list[int] = []

    def rows() -> Iterator[dict[str, str]]:
        for index in range(1000):
            read.append(index)
            yield {"a": "x" * index}

    found = look_at_rows(rows())
    assert found.num_rows == 100
    assert len(read) <= 101
    assert [sample["a"] for sample in found.samples] == ["", "x", "xx"]


def test_rows_with_other_columns_and_rows_that_are_none() -> None:
    found = look_at_rows([{"a": 1}, "no row", {"b": "x"}, {1: None}])
    assert found.num_rows == 3
    assert list(found.columns) == ["a", "b", "1"]
    assert found.samples == [{"a": "1"}, {"b": "x"}, {"1": "None"}]
    assert look_at_rows([]).columns == {}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.sampled_from("ab"), anything), max_size=5))
def test_any_data_is_described(rows: list[dict[str, Any]]) -> None:
    found = look_at_rows(rows)
    assert set(found.columns) == {name for row in rows for name in row}
    assert all(isinstance(value, str) for row in found.samples for value in row.values())
