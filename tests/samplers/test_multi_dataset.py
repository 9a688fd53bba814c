from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from samplers_helpers import Rows, interleaved
from torch.utils.data import BatchSampler, ConcatDataset, RandomSampler

from sparse_encoder.samplers import (
    BATCH_SAMPLERS,
    MULTI_DATASET_BATCH_SAMPLERS,
    BatchSamplers,
    DefaultBatchSampler,
    GroupByLabelBatchSampler,
    MultiDatasetBatchSamplers,
    MultiDatasetDefaultBatchSampler,
    NoDuplicatesBatchSampler,
    ProportionalBatchSampler,
    RoundRobinBatchSampler,
    epoch_lengths,
)

MIXERS = [ProportionalBatchSampler, RoundRobinBatchSampler]
GOLDEN = {
    RoundRobinBatchSampler: [
        [[2, 4], [5, 13], [3, 0], [12, 10], [1], [9, 11]],
        [[3, 1], [9, 8], [4, 2], [5, 11], [0], [6, 13]],
    ],
    ProportionalBatchSampler: [
        [[10, 12], [7, 6], [2, 4], [13, 8], [3, 1], [0], [11, 9], [5]],
        [[5, 7], [10, 9], [8, 12], [2, 4], [6, 13], [1, 3], [11], [0]],
    ],
}


def together(*sizes: int) -> ConcatDataset[Any]:
    return ConcatDataset([Rows([{"a": row % 11, "label": row % 3} for row in range(size)]) for size in sizes])


def children(data: Any, kind: type[DefaultBatchSampler], seed: int = 42) -> list[DefaultBatchSampler]:  # noqa: ANN401
    return [kind(rows, 2 if kind is DefaultBatchSampler else 4, False, ["label"], seed=seed) for rows in data.datasets]


@pytest.mark.parametrize("kind", MIXERS)
@pytest.mark.parametrize("given", [True, False])
def test_the_peers_batches(kind: type[Any], given: bool) -> None:
    data = together(5, 9)
    generator = torch.Generator().manual_seed(7) if given else None
    sampler = kind(data, children(data, DefaultBatchSampler), generator, seed=42)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        assert list(sampler) == GOLDEN[kind][epoch]
        assert len(sampler) == len(GOLDEN[kind][epoch])
    if generator is not None:
        assert torch.equal(generator.get_state(), torch.Generator().manual_seed(7).get_state())


@pytest.mark.parametrize("kind", MIXERS)
def test_torchs_samplers_share_the_given_generator(kind: type[Any]) -> None:
    data, shared = together(5, 9), torch.Generator()
    foreign = [BatchSampler(RandomSampler(rows, generator=shared), 2, False) for rows in data.datasets]
    sampler = kind(data, foreign, shared, seed=42)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        assert list(sampler) == GOLDEN[kind][epoch]
        assert len(sampler) == len(GOLDEN[kind][epoch])


@pytest.mark.parametrize("kind", MIXERS)
@pytest.mark.parametrize("child", [DefaultBatchSampler, NoDuplicatesBatchSampler, GroupByLabelBatchSampler])
def test_passes_at_once_do_not_disturb_each_other(kind: type[Any], child: type[DefaultBatchSampler]) -> None:
    data = together(31, 19, 23)
    sampler = kind(data, children(data, child), torch.Generator(), seed=42)
    alone = list(sampler)
    assert len(alone) == len(sampler) > 6
    assert interleaved(sampler) == (alone, alone)
    begun = iter(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != alone
    assert list(begun) == alone
    sampler.set_epoch(0)
    assert list(sampler) == alone


@pytest.mark.parametrize("child", [DefaultBatchSampler, NoDuplicatesBatchSampler, GroupByLabelBatchSampler])
def test_a_batch_comes_from_one_dataset(child: type[DefaultBatchSampler]) -> None:
    data = together(31, 19, 23)
    for kind in MIXERS:
        sampler = kind(data, children(data, child), seed=1)
        homes = [{(row >= 31) + (row >= 50) for row in batch} for batch in sampler]
        assert all(len(home) == 1 for home in homes)
        assert set.union(*homes) == {0, 1, 2}
        rows = [row for batch in sampler for row in batch]
        assert len(set(rows)) == len(rows)


def test_in_turn_until_the_shortest_ends() -> None:
    data = together(4, 9)
    homes = [batch[0] >= 4 for batch in RoundRobinBatchSampler(data, children(data, DefaultBatchSampler))]
    assert homes == [False, True, False, True]


def test_the_length_is_counted_where_only_drawing_tells() -> None:
    alike = SimpleNamespace(datasets=[Rows([{"a": "x"}] * 8), Rows([{"a": row} for row in range(8)])])
    rows = [NoDuplicatesBatchSampler(each, 4, False) for each in alike.datasets]  # 8 batches of one row, and 2 of four
    in_turn = RoundRobinBatchSampler(alike, rows)
    assert len(in_turn) == len(list(in_turn)) == 4
    proportional = ProportionalBatchSampler(alike, rows)
    assert len(proportional) == len(list(proportional)) == 4  # two turns each, as planned
    dropped = [NoDuplicatesBatchSampler(each, 4, True) for each in alike.datasets]
    assert len(ProportionalBatchSampler(alike, dropped)) == len(list(ProportionalBatchSampler(alike, dropped))) == 2
    assert len(RoundRobinBatchSampler(alike, dropped)) == 0


@pytest.mark.parametrize("kind", MIXERS)
def test_lengths_of_epochs_may_differ_and_are_known_before(kind: type[Any]) -> None:
    data = together(40, 30)
    for drop_last in (True, False):
        rows = [NoDuplicatesBatchSampler(each, 4, drop_last, ["label"]) for each in data.datasets]
        sampler = kind(data, rows)
        sampler.set_epoch(2)
        for each in (sampler, *rows):
            lengths = epoch_lengths(each, 9)
            assert each.epoch == 2
            for epoch, length in enumerate(lengths):
                each.set_epoch(epoch)
                assert len(each) == len(list(each)) == length
            each.set_epoch(2)
    assert len(set(epoch_lengths(rows[0], 9))) > 1


def test_lengths_that_do_not_vary_take_no_pass() -> None:
    data = together(5, 9)
    sampler = ProportionalBatchSampler(data, children(data, DefaultBatchSampler))
    assert epoch_lengths(sampler, 3) == [8, 8, 8]
    assert epoch_lengths(sampler.batch_samplers[0], 2) == [3, 3]
    assert epoch_lengths(BatchSampler(range(5), 2, False), 2) == [3, 3]


def test_a_subclass_in_the_style_of_the_peer_is_iterated_as_it_is() -> None:
    class Backwards(DefaultBatchSampler):
        def __iter__(self) -> Iterator[list[int]]:
            yield from [[row] for row in reversed(range(len(self.dataset)))]

    data = together(2, 3)
    rows = [Backwards(each, 1, False) for each in data.datasets]
    assert list(RoundRobinBatchSampler(data, rows)) == [[1], [4], [0], [3]]


def test_the_base_is_abstract_and_remembers_its_parts() -> None:
    data = together(4, 4)
    rows = children(data, DefaultBatchSampler)
    with pytest.raises(TypeError, match="abstract"):
        MultiDatasetDefaultBatchSampler(data, rows)  # type: ignore[abstract]
    sampler = ProportionalBatchSampler(data, rows, seed=3)
    assert (sampler.dataset, sampler.batch_samplers, sampler.seed) == (data, rows, 3)
    assert (sampler.batch_size, sampler.drop_last) == (2, False)
    sampler.set_epoch(5)
    assert [each.epoch for each in rows] == [5, 5]


def test_counts_must_match() -> None:
    data = together(4, 4)
    with pytest.raises(ValueError, match="got 2 datasets and 1 batch samplers"):
        ProportionalBatchSampler(data, children(data, DefaultBatchSampler)[:1])
    with pytest.raises(ValueError, match="at least one dataset"):
        RoundRobinBatchSampler(SimpleNamespace(datasets=[]), [])
    with pytest.raises(TypeError, match="dataset must have datasets, .* got a Rows"):
        ProportionalBatchSampler(Rows([]), children(data, DefaultBatchSampler))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="seed must be an integer, got None"):
        RoundRobinBatchSampler(data, children(data, DefaultBatchSampler), seed=None)  # type: ignore[arg-type]


def test_every_name_has_its_class() -> None:
    assert set(BATCH_SAMPLERS) == set(BatchSamplers)
    assert set(MULTI_DATASET_BATCH_SAMPLERS) == set(MultiDatasetBatchSamplers)
    assert BATCH_SAMPLERS[BatchSamplers.NO_DUPLICATES_HASHED] is NoDuplicatesBatchSampler
    assert BATCH_SAMPLERS[BatchSamplers.GROUP_BY_LABEL] is GroupByLabelBatchSampler
    assert MULTI_DATASET_BATCH_SAMPLERS[MultiDatasetBatchSamplers.ROUND_ROBIN] is RoundRobinBatchSampler


def test_public_names_are_sorted() -> None:
    import sparse_encoder.samplers as room

    constants = [name for name in room.__all__ if name.isupper()]
    classes = [name for name in room.__all__ if not name.isupper() and name[0].isupper()]
    assert room.__all__ == [*sorted(constants), *sorted(classes), "epoch_lengths"]
    assert len(room.__all__) == 14
    assert all(hasattr(room, name) for name in room.__all__)
