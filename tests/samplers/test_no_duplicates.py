from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from samplers_helpers import Rows, greedy, interleaved

from sparse_encoder.samplers import NoDuplicatesBatchSampler

COLUMNS = {"a": list("xxyzwxqr"), "b": list("12341678")}
GOLDEN = {0: [[6, 3, 0], [7, 2, 1], [4, 5]], 1: [[4, 5, 7], [1, 3, 2], [6, 0]]}


def rows_of(table: dict[str, Any]) -> Rows:
    return Rows([dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)])


@pytest.mark.parametrize("kind", [Dataset.from_dict, rows_of])
@pytest.mark.parametrize("epoch", [0, 1])
def test_the_peers_batches(kind: Any, epoch: int) -> None:  # noqa: ANN401  (a function)
    for drop_last, expected in ((False, GOLDEN[epoch]), (True, GOLDEN[epoch][:2])):
        sampler = NoDuplicatesBatchSampler(kind(COLUMNS), batch_size=3, drop_last=drop_last, seed=42)
        sampler.set_epoch(epoch)
        assert list(sampler) == expected
        assert len(sampler) == len(expected)


def test_hashing_early_or_late_is_the_same() -> None:
    data = Dataset.from_dict(COLUMNS)
    early = NoDuplicatesBatchSampler(data, 3, False, seed=42, precompute_hashes=True, precompute_batch_size=2)
    assert list(early) == GOLDEN[0]


def test_labels_and_the_name_of_the_dataset_may_occur_twice() -> None:
    data = Dataset.from_dict({"a": list("stuv"), "label": [1] * 4, "dataset_name": ["n"] * 4})
    sampler = NoDuplicatesBatchSampler(data, 4, False, ["label"])
    assert [sorted(batch) for batch in sampler] == [[0, 1, 2, 3]]
    assert len(NoDuplicatesBatchSampler(data, 4, False)) == 4  # no column is called a label


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), max_size=50),
    batch_size=st.integers(1, 7),
    epoch=st.integers(0, 3),
)
def test_a_pass_is_greedy_over_its_order(rows: list[tuple[int, int]], batch_size: int, epoch: int) -> None:
    sampler = NoDuplicatesBatchSampler(Rows([{"a": a, "b": b} for a, b in rows]), batch_size, False, seed=5)
    sampler.set_epoch(epoch)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(5 + epoch)).tolist()
    expected = greedy([{str(value) for value in rows[row]} for row in order], batch_size)
    found = list(sampler)
    assert found == [[order[place] for place in batch] for batch in expected]
    assert len(sampler) == len(found)
    assert sorted(row for batch in found for row in batch) == list(range(len(rows)))


@pytest.mark.parametrize("drop_last", [False, True])
def test_passes_at_once_do_not_disturb_each_other(drop_last: bool) -> None:
    data = Rows([{"a": row % 7} for row in range(30)])
    sampler = NoDuplicatesBatchSampler(data, 6, drop_last, seed=3)
    alone = list(sampler)
    assert interleaved(sampler) == (alone, alone)
    begun = iter(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != alone
    assert list(begun) == alone


def test_a_short_pass_repeats_rows_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    data = Rows([{"a": min(row, 3)} for row in range(12)])  # nine rows are alike
    sampler = NoDuplicatesBatchSampler(data, 4, True, seed=1)
    with caplog.at_level(logging.WARNING):
        batches = list(sampler)
        again = list(sampler)
    assert batches == again
    assert len(sampler) == len(batches) == sampler.planned_length == 3  # one a pass, two passes more
    assert all(sorted({min(row, 3) for row in batch}) == [0, 1, 2, 3] for batch in batches)
    assert [record.getMessage() for record in caplog.records] == [
        "no_duplicates found 1 of the 3 batches planned in a pass over the rows; rows are repeated to reach that number"
    ]


def test_no_batch_at_all_is_said(caplog: pytest.LogCaptureFixture) -> None:
    sampler = NoDuplicatesBatchSampler(Rows([{"a": "x"}] * 6), 2, True)
    assert list(sampler) == []
    assert len(sampler) == 0
    assert [record.getMessage() for record in caplog.records] == [
        "no_duplicates found 0 of the 3 batches planned in a pass over the rows; "
        "the dataset has too few distinct values for this batch size; lower it"
    ]


def test_more_batches_than_planned_are_counted() -> None:
    sampler = NoDuplicatesBatchSampler(Rows([{"a": "x"}] * 6), 2, False)
    assert sampler.planned_length == 3
    assert len(sampler) == len(list(sampler)) == 6


def test_rows_are_hashed_once() -> None:
    class Counting(Rows):
        reads = 0

        def __getitem__(self, index: int) -> dict[str, Any]:
            self.reads += 1
            return super().__getitem__(index)

    data = Counting([{"a": row % 5} for row in range(20)])
    sampler = NoDuplicatesBatchSampler(data, 4, False)
    assert data.reads == 0
    for epoch in range(3):
        sampler.set_epoch(epoch)
        assert len(sampler) == len(list(sampler))
    assert data.reads == 20


@pytest.mark.parametrize("name", ["precompute_num_proc", "precompute_batch_size"])
@pytest.mark.parametrize("value", [0, -2, 1.5, True])
def test_bad_numbers_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a positive integer, got {value}"):
        NoDuplicatesBatchSampler(Rows([]), 2, False, **{name: value})  # type: ignore[arg-type]


def test_no_global_random_numbers_are_drawn() -> None:
    before = torch.random.get_rng_state()
    list(NoDuplicatesBatchSampler(Dataset.from_dict(COLUMNS), 3, False))
    assert torch.equal(torch.random.get_rng_state(), before)
