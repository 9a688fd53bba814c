from __future__ import annotations

from collections import Counter
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from samplers_helpers import Rows, interleaved
from torch.utils.data import BatchSampler, SequentialSampler

from sparse_encoder.samplers import (
    CappedProportionalBatchSampler,
    DefaultBatchSampler,
    LengthBucketBatchSampler,
    NoDuplicatesBatchSampler,
    TemperatureBatchSampler,
)


def build(
    kind: type[Any],
    sizes: tuple[int, ...],
    child: type[DefaultBatchSampler] = DefaultBatchSampler,
    **options: Any,  # noqa: ANN401  (of any sampler)
) -> Any:  # noqa: ANN401  (any sampler)
    data = SimpleNamespace(datasets=[Rows([{"a": row} for row in range(size)]) for size in sizes])
    rows = [child(each, 4, False, seed=1) for each in data.datasets]
    return kind(data, rows, **{"seed": 1, **options})


def home(batch: list[int], sizes: tuple[int, ...]) -> int:
    """Return which dataset a batch is of."""
    homes = {sum(row >= sum(sizes[: place + 1]) for place in range(len(sizes))) for row in batch}
    assert len(homes) == 1
    return homes.pop()


@pytest.mark.parametrize(
    ("temperature", "cap", "expected"),
    [
        (1, None, [0.8, 0.2]),
        (2, None, [2 / 3, 1 / 3]),  # 20 : 10
        (1e9, None, [0.5, 0.5]),
        (1, 200, [2 / 3, 1 / 3]),
        (1, 50, [0.5, 0.5]),
        (0.5, None, [16 / 17, 1 / 17]),
    ],
)
def test_datasets_are_drawn_by_the_formula(temperature: float, cap: int | None, expected: list[float]) -> None:
    options = {"temperature": temperature, "max_rows_per_dataset": cap, "num_batches": 4000}
    sampler = build(TemperatureBatchSampler, (400, 100), **options)
    assert sampler.probabilities == pytest.approx(expected, abs=1e-6)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 4000
    drawn = Counter(home(batch, (400, 100)) for batch in batches)
    assert drawn[0] / 4000 == pytest.approx(expected[0], abs=0.03)


def test_a_dataset_that_runs_out_is_gone_through_in_another_order() -> None:
    sizes = (8, 400)
    sampler = build(TemperatureBatchSampler, sizes, temperature=1e6)
    assert len(sampler) == 102  # as many as both have
    small = [batch for batch in sampler if home(batch, sizes) == 0]
    assert len(small) > 30
    passes = [small[place] + small[place + 1] for place in range(0, len(small) - 1, 2)]
    assert all(sorted(rows) == list(range(8)) for rows in passes)
    assert len({tuple(rows) for rows in passes}) == len(passes)


@pytest.mark.parametrize("child", [DefaultBatchSampler, NoDuplicatesBatchSampler])
@pytest.mark.parametrize(
    "kind",
    [partial(TemperatureBatchSampler, temperature=3), partial(CappedProportionalBatchSampler, max_rows_per_dataset=12)],
)
def test_passes_at_once_do_not_disturb_each_other(kind: Any, child: type[DefaultBatchSampler]) -> None:  # noqa: ANN401
    sampler = build(kind, (40, 20), child)
    alone = list(sampler)
    assert len(sampler) == len(alone) > 5
    assert interleaved(sampler) == (alone, alone)
    begun = iter(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != alone
    assert list(begun) == alone


def test_a_dataset_without_batches_is_never_drawn() -> None:
    sampler = build(TemperatureBatchSampler, (0, 20, 0), temperature=2, num_batches=30)
    assert sampler.probabilities == [0, 1, 0]
    assert {home(batch, (0, 20, 0)) for batch in sampler} == {1}
    with pytest.raises(ValueError, match=r"no dataset has a batch; the samplers plan \[0, 0\]"):
        build(TemperatureBatchSampler, (0, 0), temperature=2)


def test_a_sampler_that_breaks_its_plan_is_named() -> None:
    class Liar(DefaultBatchSampler):
        def __iter__(self) -> Any:  # noqa: ANN401  (an iterator)
            return iter([])

    with pytest.raises(ValueError, match="sampler of dataset 0 planned batches, but gives none"):
        list(build(TemperatureBatchSampler, (8,), Liar, temperature=1))


def test_torchs_samplers_are_begun_again() -> None:
    data = SimpleNamespace(datasets=[range(4)])
    rows = [BatchSampler(SequentialSampler(range(4)), 3, False)]
    sampler = TemperatureBatchSampler(data, rows, temperature=1, num_batches=3)
    assert list(sampler) == [[0, 1, 2], [3], [0, 1, 2]]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": float("inf")},
        {"temperature": 1, "num_batches": 0},
        {"temperature": 1, "max_rows_per_dataset": 2.5},
    ],
)
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    name = list(options)[-1]
    with pytest.raises(ValueError, match=f"{name} must be a positive .*, got {options[name]}"):
        build(TemperatureBatchSampler, (8, 8), **options)


@pytest.mark.parametrize("temperature", ["3", True, None])
def test_a_temperature_that_is_no_number_is_named(temperature: Any) -> None:  # noqa: ANN401  (what is none)
    with pytest.raises(TypeError, match=f"^temperature must be a number, got {temperature!r}$"):
        build(TemperatureBatchSampler, (8, 8), temperature=temperature)


def test_no_dataset_gives_more_rows_than_the_cap() -> None:
    sizes = (40, 9, 3)
    sampler = build(CappedProportionalBatchSampler, sizes, max_rows_per_dataset=14)
    seen: set[int] = set()
    for epoch in range(12):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == 3 + 3 + 1
        rows = Counter(home(batch, sizes) for batch in batches for _ in batch)
        assert rows == {0: 12, 1: 9, 2: 3}
        seen |= {row for batch in batches for row in batch}
    assert seen == set(range(52))  # other rows in every epoch


@pytest.mark.parametrize("cap", [3, 0, 1.5])
def test_a_cap_below_a_batch_is_refused(cap: int) -> None:
    with pytest.raises(ValueError, match=f"max_rows_per_dataset must be .*got {cap}"):
        build(CappedProportionalBatchSampler, (40, 9), max_rows_per_dataset=cap)


def test_batches_of_any_size_are_capped_by_their_largest() -> None:
    data = SimpleNamespace(datasets=[Rows([{"a": row} for row in range(30)])])
    rows = [LengthBucketBatchSampler(data.datasets[0], 5, False, max_tokens=100, lengths=[10] * 30)]
    sampler = CappedProportionalBatchSampler(data, rows, max_rows_per_dataset=11)
    assert sampler.batch_size is None
    assert [len(batch) for batch in sampler] == [5, 5]
