from __future__ import annotations

import random

import pytest

from sparse_encoder.token_batches import TOKEN_BUDGET, Batch, plan_batches, split_batch


def test_each_row_comes_once_and_a_batch_has_one_length() -> None:
    rng = random.Random(7)
    lengths = [rng.randint(1, 130) for _ in range(97)]
    batches = plan_batches(lengths, max_length=130, batch_size=5)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(97))
    for batch in batches:
        assert len(batch.rows) <= 5
        for row in batch.rows:
            assert lengths[row] <= batch.length <= min(130, max(16, lengths[row] + 15))
    assert [batch.length for batch in batches] == sorted((batch.length for batch in batches), reverse=True)


def test_plan_by_hand() -> None:
    plan = plan_batches([3, 17, 16, 40, 2, 33], max_length=40, batch_size=2)
    assert plan == [Batch([3, 5], 40), Batch([1], 32), Batch([0, 2], 16), Batch([4], 16)]


@pytest.mark.parametrize("max_length", [None, 100])
def test_the_length_of_a_text_does_not_depend_on_the_others(max_length: int | None) -> None:
    (alone,) = plan_batches([20], max_length=max_length, batch_size=8)
    together = plan_batches([20, 90, 3], max_length=max_length, batch_size=8)
    assert alone.length == 32
    assert [batch.length for batch in together if 0 in batch.rows] == [32]


def test_tokens_of_a_batch_stay_within_the_budget() -> None:
    batches = plan_batches([64] * 10, max_length=64, batch_size=100, token_budget=200)
    assert [len(batch.rows) for batch in batches] == [3, 3, 3, 1]
    assert plan_batches([64], max_length=64, batch_size=1, token_budget=1) == [Batch([0], 64)]
    assert max(len(batch.rows) for batch in plan_batches([512] * 99, max_length=512, batch_size=10**9)) == 32
    assert TOKEN_BUDGET == 32 * 512


def test_no_rows_make_no_batches() -> None:
    assert plan_batches([], max_length=8, batch_size=4) == []
    assert plan_batches([0], max_length=8, batch_size=4) == [Batch([0], 8)]


def test_split() -> None:
    assert split_batch(Batch([4, 2, 9], 32), batch_size=64, token_budget=64) == [Batch([4, 2], 32), Batch([9], 32)]
