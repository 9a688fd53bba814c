from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from accelerate import skip_first_batches
from data_helpers import Anything, InTurn, Process, keep, loader, read, settings, texts
from torch.utils.data import BatchSampler, RandomSampler

from sparse_encoder.samplers import DefaultBatchSampler, MultiDatasetBatchSamplers
from sparse_encoder.training.data.datasets import as_training_data
from sparse_encoder.training.data.loaders import LoaderSettings, build_loader, length_of, skip_batches
from sparse_encoder.training.data.rows import ConcatRows, Rows

KINDS: dict[str, Callable[[], Anything]] = {
    "rows": lambda: texts("a", 5),
    "list": lambda: list(texts("a", 5)),
    "several": lambda: {"x": texts("a", 5), "y": texts("b", 9)},
    "stream": lambda: texts("b", 9).to_iterable_dataset(num_shards=3).shuffle(seed=3, buffer_size=4),
    "streams": lambda: {"x": texts("a", 5).to_iterable_dataset(), "y": texts("b", 9).to_iterable_dataset()},
}


def test_one_dataset_is_read_in_the_order_of_its_sampler() -> None:
    batches = [[2, 4], [3, 0], [1]]  # torch.randperm(5) by a generator with the seed 42
    assert read(loader(texts("a", 5))) == [[f"a{i}" for i in batch] for batch in batches]


def test_every_batch_of_several_datasets_is_from_one() -> None:
    got = read(loader(KINDS["several"]()))
    assert got == [["a2", "a4"], ["b6", "b4"], ["a3", "a0"], ["b0", "b7"], ["a1"], ["b5", "b8"]]


def test_streams_come_in_turn_until_the_shortest_ends() -> None:
    got = read(loader(KINDS["streams"](), stream_order=MultiDatasetBatchSamplers.ROUND_ROBIN))
    assert got == [["a0", "a1"], ["b0", "b1"], ["a2", "a3"], ["b2", "b3"], ["a4"], ["b4", "b5"]]


def test_streams_come_at_random_and_each_in_full() -> None:
    batches = loader(KINDS["streams"](), batch_size=1)
    passes = [read(batches, epoch) for epoch in (0, 1, 0)]
    assert passes[0] == passes[2] != passes[1]
    for got in passes:
        rows = [row for batch in got for row in batch]
        assert [row for row in rows if row[0] == "a"] == [f"a{i}" for i in range(5)]
        assert [row for row in rows if row[0] == "b"] == [f"b{i}" for i in range(9)]
        assert rows != sorted(rows)
    assert read(loader(KINDS["streams"](), batch_size=1, seed=7), 0) != passes[0]


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_a_function_of_seed_and_epoch(kind: str) -> None:
    batches = loader(KINDS[kind]())
    first, second = read(batches, 0), read(batches, 1)
    assert first != second
    again = loader(KINDS[kind]())
    assert read(again, 1) == second
    assert read(again, 0) == first


@pytest.mark.parametrize("persistent_workers", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_workers_change_no_batch(kind: str, persistent_workers: bool) -> None:
    alone = loader(KINDS[kind]())
    helped = loader(KINDS[kind](), num_workers=2, persistent_workers=persistent_workers)
    for epoch in (2, 0, 1):
        assert read(helped, epoch) == read(alone, epoch)


def test_the_epoch_reaches_workers_that_were_started_anew() -> None:
    alone = loader(KINDS["streams"]())
    options = {"num_workers": 1, "persistent_workers": True, "multiprocessing_context": "spawn"}
    helped = loader(KINDS["streams"](), **options)
    for epoch in (2, 1):
        assert read(helped, epoch) == read(alone, epoch)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skip", [skip_first_batches, skip_batches])
def test_skipped_batches_change_no_other(skip: Anything, kind: str, workers: int) -> None:
    batches = loader(KINDS[kind](), num_workers=workers)
    whole = read(batches, 1)
    batches.set_epoch(1)
    assert read(skip(batches, 2)) == whole[2:]
    batches.set_epoch(1)
    assert read(batches) == whole  # it still begins with the first


def test_skipped_batches_of_a_stream_are_not_collated() -> None:
    collated = []

    def collate(rows: Anything) -> dict[str, Anything]:
        collated.append(len(rows))
        return keep(rows)

    assert read(skip_batches(loader(texts("a", 9).to_iterable_dataset(), collate=collate), 4)) == [["a8"]]
    assert collated == [1]


def test_what_rows_of_several_datasets_draw_depends_on_their_place_alone() -> None:
    def noisy(letter: str) -> Anything:
        return texts(letter, 6).with_transform(
            lambda batch: {letter: [f"{text} {torch.rand(()).item()}" for text in batch[letter]]}
        )

    batches = loader({"x": noisy("a"), "y": noisy("b")})
    whole = read(batches, 0)
    assert len({row.split()[1] for batch in whole for row in batch}) == 12
    torch.manual_seed(9)
    assert read(batches, 0) == whole
    batches.set_epoch(0)
    assert read(skip_first_batches(batches, 3)) == whole[3:]
    assert read(batches, 1) != whole


def test_what_rows_of_a_stream_draw_depends_on_their_place_alone() -> None:
    stream = texts("a", 7).to_iterable_dataset()
    noisy = stream.map(lambda row: {"a": f"{row['a']} {torch.rand(()).item()}"}, features=stream.features)
    batches = loader(noisy)
    whole = read(batches, 0)
    torch.manual_seed(9)
    assert read(batches, 0) == whole == read(loader(noisy, num_workers=2), 0)
    batches.set_epoch(0)
    assert read(skip_batches(batches, 2)) == whole[2:]
    assert read(batches, 1) != whole


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drop_last", [True, False])
def test_processes_share_what_one_would_read(kind: str, drop_last: bool) -> None:
    data = KINDS[kind]()
    whole = read(loader(data, drop_last=drop_last), 1)
    left, right = (read(loader(data, accelerator=Process(2, index), drop_last=drop_last), 1) for index in (0, 1))
    assert left[: len(whole) // 2] == whole[: len(whole) // 2 * 2 : 2]
    assert right[: len(whole) // 2] == whole[1::2]
    if drop_last or "stream" in kind:
        assert len(left) == len(right) == len(whole) // 2


@pytest.mark.parametrize("kind", KINDS)
def test_evaluating_processes_have_as_many_batches_and_leave_none_out(kind: str) -> None:
    whole = read(loader(KINDS[kind]()), 0)
    shares = [read(loader(KINDS[kind](), accelerator=Process(4, i), even_batches=True), 0) for i in range(4)]
    assert {len(share) for share in shares} == {-(-len(whole) // 4)}
    together = [shares[i % 4][i // 4] for i in range(4 * len(shares[0]))]
    assert together[: len(whole)] == whole
    assert together[len(whole) :] == (whole * 4)[: len(together) - len(whole)]


def test_fewer_batches_than_processes_are_repeated_for_evaluation() -> None:
    for data in (texts("a", 1), texts("a", 1).to_iterable_dataset()):
        shares = [read(loader(data, accelerator=Process(3, i), even_batches=True)) for i in range(3)]
        assert shares == [[["a0"]]] * 3


def test_the_epoch_reaches_the_sampler_the_rows_and_a_sampler_within() -> None:
    class Inner(RandomSampler):
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    data = as_training_data(texts("a", 8), "train_dataset")
    for accelerator in (Process(1, 0), Process(2, 1)):
        made: list[BatchSampler] = []

        def make(dataset: Anything, batch_size: int, drop_last: bool, **_: Anything) -> BatchSampler:
            made.append(BatchSampler(Inner(dataset), batch_size, drop_last))  # noqa: B023
            return made[-1]  # noqa: B023

        batches = build_loader(
            data,
            settings(),
            collate=keep,
            accelerator=accelerator,
            make_batch_sampler=make,
            make_multi_dataset_batch_sampler=InTurn,
        )
        batches.set_epoch(5)
        assert made[0].sampler.epoch == 5
        if accelerator.num_processes == 1:
            assert batches.batch_sampler is made[0]

    batches = loader(KINDS["several"](), accelerator=Process(2, 0))
    batches.set_epoch(3)
    assert isinstance(batches.dataset, ConcatRows)
    assert [rows.epoch for rows in batches.dataset.datasets] == [3, 3]
    assert batches.batch_sampler.batches_of_all.epochs == [3]
    single = loader(texts("a", 5), accelerator=Process(2, 0))
    single.set_epoch(4)
    assert isinstance(single.dataset, Rows)
    assert single.dataset.epoch == 4


def test_samplers_share_a_generator_and_get_what_the_settings_say() -> None:
    calls: list[dict[str, Anything]] = []

    def make(dataset: Anything, **options: Anything) -> BatchSampler:
        calls.append({"rows": len(dataset), **options})
        return DefaultBatchSampler(dataset, **options)

    def make_multi(dataset: Anything, batch_samplers: Anything, **options: Anything) -> BatchSampler:
        calls.append({"rows": len(dataset), **options})
        return InTurn(dataset, batch_samplers)

    build_loader(
        as_training_data(KINDS["several"](), "train_dataset"),
        settings(drop_last=True),
        collate=keep,
        accelerator=Process(1, 0),
        make_batch_sampler=make,
        make_multi_dataset_batch_sampler=make_multi,
    )
    assert [call["rows"] for call in calls] == [5, 9, 14]
    assert calls[0]["generator"] is calls[1]["generator"] is calls[2]["generator"]
    assert calls[0]["generator"].initial_seed() == 42
    assert {call["seed"] for call in calls} == {42}
    expected = {"batch_size": 2, "drop_last": True, "valid_label_columns": ["label", "labels", "score", "scores"]}
    assert all({name: call[name] for name in expected} == expected for call in calls[:2])


def test_lengths_are_of_this_process_and_none_for_streams() -> None:
    assert length_of(loader(texts("a", 5))) == 3
    assert length_of(loader(KINDS["several"]())) == 6
    assert [length_of(loader(texts("a", 5), accelerator=Process(2, i))) for i in (0, 1)] == [2, 1]
    assert [length_of(loader(texts("a", 5), accelerator=Process(2, i), drop_last=True)) for i in (0, 1)] == [1, 1]
    assert [length_of(loader(texts("a", 5), accelerator=Process(2, i), even_batches=True)) for i in (0, 1)] == [2, 2]
    assert length_of(loader(KINDS["stream"]())) is None
    assert length_of(loader(KINDS["streams"]())) is None


def test_data_too_small_for_a_batch_are_named() -> None:
    with pytest.raises(ValueError, match=r"train_dataset has 3 rows, not enough for one batch of 4 .* are dropped"):
        loader(texts("a", 3), batch_size=4, drop_last=True)
    with pytest.raises(ValueError, match=r"train_dataset\['y'\] has 3 rows, not enough for one batch of 4"):
        loader({"x": texts("a", 4), "y": texts("b", 3)}, batch_size=4, drop_last=True)
    with pytest.raises(ValueError, match="train_dataset has 5 rows, not enough for one batch of 4 per process"):
        loader(texts("a", 5), batch_size=4, drop_last=True, accelerator=Process(2, 0))
    with pytest.raises(ValueError, match="train_dataset gave 0 rows in whole batches, .* of 4 .* batches are dropped"):
        read(loader(texts("a", 3).to_iterable_dataset(), batch_size=4, drop_last=True))
    with pytest.raises(ValueError, match="gave 3 rows in whole batches, not enough for one batch of 4 per process"):
        read(loader(texts("a", 3).to_iterable_dataset(), batch_size=4, accelerator=Process(2, 0)))


def test_a_sampler_without_batches_is_named() -> None:
    class Empty(DefaultBatchSampler):
        def __len__(self) -> int:
            return 0

    with pytest.raises(ValueError, match="the Empty makes no batch of 2 of the 5 rows of train_dataset"):
        build_loader(
            as_training_data(texts("a", 5), "train_dataset"),
            settings(),
            collate=keep,
            accelerator=Process(1, 0),
            make_batch_sampler=Empty,
            make_multi_dataset_batch_sampler=InTurn,
        )


def test_a_batch_size_is_positive() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        LoaderSettings(batch_size=0, drop_last=False, even_batches=False, seed=0)
