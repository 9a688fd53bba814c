from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from samplers_helpers import Rows, interleaved

from sparse_encoder.samplers import LengthBucketBatchSampler, ProportionalBatchSampler


def build(lengths: list[int], batch_size: int = 8, drop_last: bool = False, **options: Any) -> LengthBucketBatchSampler:  # noqa: ANN401
    rows = Rows([{"a": row} for row in range(len(lengths))])
    settings_ = {"max_tokens": 64, "bucket_width": 4, **options}
    return LengthBucketBatchSampler(rows, batch_size, drop_last, seed=2, lengths=lengths, **settings_)


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 64), max_size=60),
    batch_size=st.integers(1, 9),
    width=st.integers(1, 20),
    epoch=st.integers(0, 3),
)
def test_no_batch_is_over_the_budget(lengths: list[int], batch_size: int, width: int, epoch: int) -> None:
    sampler = build(lengths, batch_size, bucket_width=width)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        assert len(batch) * max(lengths[row] for row in batch) <= 64


def test_batches_by_hand() -> None:
    sampler = build([4, 3, 16, 15, 30, 1, 14, 13, 2], max_tokens=32, batch_size=3)
    batches = {tuple(sorted(batch)) for batch in sampler}
    padded = sorted(
        max(4 * -(-length // 4) for length in [[4, 3, 16, 15, 30, 1, 14, 13, 2][row] for row in batch])
        for batch in batches
    )
    assert padded == [4, 4, 16, 16, 32]  # rows: 3 and 1 of 4, 2 and 2 of 16, one of 32
    assert sorted(map(len, batches)) == [1, 1, 2, 2, 3]


def test_drop_last_leaves_out_only_what_has_room() -> None:
    lengths = [16] * 5 + [4] * 3
    kept = list(build(lengths, max_tokens=32, batch_size=8, drop_last=True))
    assert [len(batch) for batch in kept] == [2, 2, 2]  # the fifth of 16 and one of 4, which is full; two of 4 are left
    assert len({row for batch in kept for row in batch} - {0, 1, 2, 3, 4}) == 1
    assert len(build(lengths, max_tokens=32, batch_size=8, drop_last=True)) == 3


def test_rows_of_a_bucket_and_batches_are_shuffled_each_epoch() -> None:
    sampler = build([8] * 64)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert [min(batch) for batch in first] != sorted(min(batch) for batch in first)
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert interleaved(sampler) == (first, first)


def test_little_is_padding() -> None:
    draw = [(row * 37) % 60 + 1 for row in range(600)]
    sampler = build(draw, 64, max_tokens=512)
    cells = sum(len(batch) * max(draw[row] for row in batch) for batch in sampler)
    assert cells < 1.1 * sum(draw)


def test_a_function_counts_the_tokens_of_a_row_without_its_label() -> None:
    data = Dataset.from_dict({"text": ["a b", "a", "a b c"], "label": [1, 2, 3]})
    seen = []

    def count(row: Any) -> int:  # noqa: ANN401  (a row)
        seen.append(dict(row))
        return len(row["text"].split())

    sampler = LengthBucketBatchSampler(data, 2, False, ["label"], max_tokens=4, lengths=count, bucket_width=1)
    assert seen == [{"text": "a b"}, {"text": "a"}, {"text": "a b c"}]
    assert sorted(sorted(batch) for batch in sampler) == [[0, 1], [2]]


def test_batches_differ_in_size_and_accelerate_is_told() -> None:
    sampler = build([8] * 9)
    assert sampler.batch_size is None
    assert sampler.max_rows == 8
    mixed = ProportionalBatchSampler(type("Both", (), {"datasets": [range(9)]})(), [sampler])
    assert mixed.batch_size is None
    assert sorted(map(len, mixed)) == [1, 8]
    assert len(mixed) == 2


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 65], "row 1 has 65 tokens; it must be between 0 and max_tokens=64"),
        ([-1, 3], "row 0 has -1 tokens"),
        ([1, 2.0], "whole numbers, one for each row; row 1 has 2.0"),
        ([True, 2], "row 0 has True"),
        ([1, "3"], "row 1 has '3'"),
        ([1, None], "row 1 has None"),
        ([[1, 1], [2, 2]], r"row 0 has \[1, 1\]"),
        ([1, [2, 3]], r"row 1 has \[2, 3\]"),
    ],
)
def test_bad_lengths_are_named(lengths: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(lengths)


def test_arrays_of_lengths() -> None:
    plain = list(build([3, 9, 17]))
    assert list(build(np.array([3, 9, 17], dtype=np.uint8))) == plain
    assert list(build(torch.tensor([3, 9, 17]))) == plain
    with pytest.raises(ValueError, match=r"row 0 has \[1, 1\]"):  # four numbers are no lengths of four rows
        LengthBucketBatchSampler(range(4), 2, False, max_tokens=4, lengths=np.ones((2, 2), dtype=np.int64))


def test_every_row_needs_a_length() -> None:
    with pytest.raises(ValueError, match="got 1 lengths for 2 rows"):
        LengthBucketBatchSampler(range(2), 2, False, max_tokens=4, lengths=[1])


@pytest.mark.parametrize("name", ["max_tokens", "bucket_width"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_bad_numbers_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a positive integer, got {value}"):
        build([1], **{name: value})
