from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samplers_helpers import greedy

from sparse_encoder.samplers import first_fit as module
from sparse_encoder.samplers.first_fit import first_fit


def grouped(batches: np.ndarray) -> list[list[int]]:
    return [np.flatnonzero(batches == batch).tolist() for batch in range(int(batches.max(initial=-1)) + 1)]


def test_a_row_goes_to_the_first_batch_with_room_and_without_its_values() -> None:
    values = np.array([[0, 1], [2, 3], [0, 4], [5, 2], [6, 7], [8, 9], [0, 2]])
    assert grouped(first_fit(values, 10, 3)) == [[0, 1, 4], [2, 3, 5], [6]]


def test_rows_without_repeated_values_fill_batches_in_order() -> None:
    assert first_fit(np.arange(10).reshape(5, 2), 10, 2).tolist() == [0, 0, 1, 1, 2]
    assert first_fit(np.zeros((5, 0), dtype=np.int64), 0, 2).tolist() == [0, 0, 1, 1, 2]
    assert first_fit(np.zeros((0, 2), dtype=np.int64), 0, 2).tolist() == []


def test_a_value_twice_in_a_row_is_no_conflict() -> None:
    assert first_fit(np.array([[0, 0], [1, 1], [0, 0]]), 2, 4).tolist() == [0, 0, 1]


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 9), st.integers(0, 30)), min_size=1, max_size=60),
    batch_size=st.integers(1, 8),
)
def test_it_is_the_same_as_filling_one_batch_after_another(rows: list[tuple[int, ...]], batch_size: int) -> None:
    found = grouped(first_fit(np.array(rows), 31, batch_size))
    assert found == greedy([set(row) for row in rows], batch_size)


def test_rows_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 20, (50, 2))
    expected = first_fit(values, 20, 4).tolist()
    monkeypatch.setattr(module, "_ROWS_AT_A_TIME", 7)
    assert first_fit(values, 20, 4).tolist() == expected


@pytest.mark.parametrize("kinds", [1, 3])
def test_the_work_grows_with_the_rows_however_many_are_left_over(kinds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0
    original = module._OpenBatches._without

    def counted(self: module._OpenBatches, value: int, batch: int) -> int:
        nonlocal steps
        steps += 1
        return original(self, value, batch)

    monkeypatch.setattr(module._OpenBatches, "_without", counted)
    rows = 8_000
    draw = np.random.default_rng(1)
    repeated = draw.integers(0, kinds, rows)
    values = np.stack(
        [np.where(draw.random(rows) < 0.5, repeated, kinds + np.arange(rows)), rows * 2 + np.arange(rows)]
    )
    first_fit(values.T, 3 * rows, 32)  # half of the rows have one of a few values: as many batches as that
    assert rows < steps < 10 * rows  # the peer's way takes rows * batches / 4, millions
