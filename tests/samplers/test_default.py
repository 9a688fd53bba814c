from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, SequentialSampler

from sparse_encoder.samplers import (
    BatchSamplers,
    DefaultBatchSampler,
    MultiDatasetBatchSamplers,
    ProportionalBatchSampler,
)


def test_the_peers_order() -> None:
    sampler = DefaultBatchSampler(range(10), batch_size=4, drop_last=False, seed=42)
    assert list(sampler) == [[2, 6, 1, 8], [4, 5, 0, 9], [3, 7]]
    sampler.set_epoch(1)
    assert list(sampler) == [[8, 4, 9, 0], [5, 1, 6, 7], [2, 3]]


def test_a_pass_has_no_memory() -> None:
    sampler = DefaultBatchSampler(range(10), batch_size=4, drop_last=False, seed=42)
    sampler.set_epoch(3)
    half = iter(sampler)
    next(half)
    later = DefaultBatchSampler(range(10), batch_size=4, drop_last=False, seed=42)
    later.set_epoch(3)
    assert list(sampler) == list(later)


def test_a_given_generator_tells_the_device_and_is_left_alone() -> None:
    generator = torch.Generator().manual_seed(99)
    before = generator.get_state()
    sampler = DefaultBatchSampler(range(10), batch_size=4, drop_last=True, generator=generator, seed=42)
    assert list(sampler) == [[2, 6, 1, 8], [4, 5, 0, 9]]
    assert torch.equal(generator.get_state(), before)


def test_passes_at_once_and_later_epochs_do_not_disturb_each_other() -> None:
    sampler = DefaultBatchSampler(range(10), batch_size=4, drop_last=False, seed=42)
    early = iter(sampler)
    sampler.set_epoch(1)
    late = list(sampler)
    assert list(early) == [[2, 6, 1, 8], [4, 5, 0, 9], [3, 7]]
    assert late == [[8, 4, 9, 0], [5, 1, 6, 7], [2, 3]]


def test_no_global_random_numbers_are_drawn() -> None:
    before = torch.random.get_rng_state()
    list(DefaultBatchSampler(range(10), batch_size=4, drop_last=False))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_sampler_in_place_of_the_dataset_is_refused() -> None:
    with pytest.raises(TypeError, match="give the dataset, not .*SequentialSampler"):
        DefaultBatchSampler(SequentialSampler(range(10)), batch_size=4, drop_last=False)


@pytest.mark.parametrize("seed", [None, 1.5, True])
def test_a_bad_seed_is_refused(seed: int) -> None:
    with pytest.raises(TypeError, match=f"seed must be an integer, got {seed}"):
        DefaultBatchSampler(range(10), batch_size=4, drop_last=False, seed=seed)


@given(rows=st.integers(0, 40), batch_size=st.integers(1, 9), drop_last=st.booleans(), epoch=st.integers(0, 5))
def test_every_row_once_and_the_length_is_true(rows: int, batch_size: int, drop_last: bool, epoch: int) -> None:
    sampler = DefaultBatchSampler(range(rows), batch_size=batch_size, drop_last=drop_last)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    seen = [row for batch in batches for row in batch]
    assert len(set(seen)) == len(seen)
    assert len(seen) == (rows // batch_size * batch_size if drop_last else rows)
    assert all(len(batch) == batch_size for batch in batches[:-1])


@pytest.mark.parametrize("epoch", ["x", 0.5, True, None])
def test_a_bad_epoch_is_refused(epoch: int) -> None:
    sampler = DefaultBatchSampler(range(10), batch_size=4, drop_last=False)
    several = ProportionalBatchSampler(ConcatDataset([range(10)]), [sampler])  # type: ignore[list-item]
    for each in (sampler, several):
        with pytest.raises(TypeError, match=f"epoch must be an integer, got {epoch!r}"):
            each.set_epoch(epoch)
        assert each.epoch == 0


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True])
def test_a_bad_batch_size_is_refused(batch_size: int) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        DefaultBatchSampler(range(10), batch_size=batch_size, drop_last=False)


def test_names_are_strings_with_a_closed_set_of_values() -> None:
    assert BatchSamplers("no_duplicates") is BatchSamplers.NO_DUPLICATES
    assert [name.value for name in BatchSamplers] == [
        "batch_sampler",
        "no_duplicates",
        "no_duplicates_hashed",
        "group_by_label",
    ]
    assert [name.value for name in MultiDatasetBatchSamplers] == ["round_robin", "proportional"]
    assert BatchSamplers.BATCH_SAMPLER == "batch_sampler"
    with pytest.raises(ValueError, match=r"unknown MultiDatasetBatchSamplers 'x'; choose from \['round_robin'"):
        MultiDatasetBatchSamplers("x")
