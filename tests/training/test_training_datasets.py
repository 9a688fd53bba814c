from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from data_helpers import Anything, Numbered, Process, loader, read, texts
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from datasets.distributed import split_dataset_by_node

from sparse_encoder.samplers import MultiDatasetBatchSamplers
from sparse_encoder.training.data.datasets import TrainingData, as_training_data, fingerprint, num_rows
from sparse_encoder.training.data.streams import stream_order


def data(dataset: Anything) -> TrainingData:
    return as_training_data(dataset, "train_dataset")


SINGLE = [texts("a", 3), list(texts("a", 3)), tuple(texts("a", 3)), Numbered(list(texts("a", 3)))]


@pytest.mark.parametrize("dataset", SINGLE)
def test_one_dataset_of_every_kind_is_read_alike(dataset: Anything) -> None:
    found = data(dataset)
    assert (found.is_mapping, found.is_stream, num_rows(found)) == (False, False, 3)
    assert read(loader(dataset)) == [["a0", "a2"], ["a1"]]


@pytest.mark.parametrize("kind", [dict, DatasetDict])
def test_several_datasets_keep_their_names_and_order(kind: Anything) -> None:
    found = data(kind({"y": texts("b", 4), "x": texts("a", 3)}))
    assert (list(found.parts), found.is_mapping, found.is_stream, num_rows(found)) == (["y", "x"], True, False, 7)
    mixed = data({"a": texts("a", 3), "b": list(texts("b", 4)), "c": Numbered(list(texts("c", 5)))})
    assert num_rows(mixed) == 12
    assert data(found) is found


@pytest.mark.parametrize("kind", [dict, IterableDatasetDict])
def test_streams_have_no_number_of_rows(kind: Anything) -> None:
    single = data(texts("a", 3).to_iterable_dataset())
    assert (single.is_mapping, single.is_stream, num_rows(single)) == (False, True, None)
    several = data(kind({"x": texts("a", 3).to_iterable_dataset()}))
    assert (several.is_mapping, several.is_stream, num_rows(several)) == (True, True, None)


def test_one_of_several_can_be_taken() -> None:
    several = data({"x": texts("a", 3), "y": texts("b", 4)})
    chosen = several.select("y")
    assert (chosen.name, chosen.is_mapping, num_rows(chosen)) == ("train_dataset['y']", False, 4)
    assert read(loader(chosen))[1] != read(loader(several))[1]
    with pytest.raises(ValueError, match=r"train_dataset has no dataset 'z'; it has \['x', 'y'\]"):
        several.select("z")
    with pytest.raises(ValueError, match="train_dataset has no dataset 'x'; it is a single one"):
        data(texts("a", 3)).select("x")


def featureless() -> IterableDataset:
    return IterableDataset.from_generator(lambda: iter([{"text": "a", "label": 1}]))


REFUSED: list[tuple[Any, str]] = [
    ({}, "train_dataset is a dict without datasets"),
    ({"x": texts("a", 3), "y": texts("b", 3).to_iterable_dataset()}, r"has streams, \['y'\], beside .* \['x'\]; give"),
    ({"x": {"y": texts("a", 3)}}, r"train_dataset\['x'\] holds several datasets, but dicts of datasets have one level"),
    ({"x": texts("a", 3), "y": []}, r"train_dataset\['y'\] has no rows"),
    (texts("a", 0), "train_dataset has no rows"),
    (3, "train_dataset is of the type int; give a datasets.Dataset, a list of dicts, or"),
    ("texts", "train_dataset is of the type str"),
    (iter([{"text": "a"}]), "train_dataset is of the type list_iterator"),
    ([{"a": "b"}, {"a": "c", "d": "e"}], r"row 1 of train_dataset has the columns \['a', 'd'\], but row 0 has \['a'\]"),
    ({"x": Numbered([("a", "b")])}, r"rows of train_dataset\['x'\] must be dicts from column to value, got tuple"),
    ({"x": Dataset.from_dict({"label": [1]})}, r"train_dataset\['x'\] has no text column, got \['label'\]"),
    (Dataset.from_dict({"score": [1]}).to_iterable_dataset(), r"train_dataset has no text column, got \['score'\]"),
    (Dataset.from_dict({"text": ["a"], "return_loss": [1]}), r"reserved names, \['return_loss'\]; rename them"),
    (Dataset.from_dict({"text": ["a"], "dataset_name": ["b"]}).to_iterable_dataset(), r"\['dataset_name'\]; rename"),
    (featureless(), r"train_dataset is a stream without features; .* stream.cast\(datasets.Features\(\{'text': Value"),
    ({"x": featureless()}, r"train_dataset\['x'\] is a stream without features"),
]


def test_streams_that_start_elsewhere_or_are_split_are_refused() -> None:
    stream = texts("a", 6).to_iterable_dataset(num_shards=2)
    moved = texts("a", 6).to_iterable_dataset()
    moved.load_state_dict(stream.state_dict())
    with pytest.raises(ValueError, match="train_dataset was told to start at a place by load_state_dict"):
        data(moved)
    half = split_dataset_by_node(stream, rank=1, world_size=2)
    assert read(loader(half)) == [["a3", "a4"], ["a5"]]
    with pytest.raises(ValueError, match=r"train_dataset\['x'\] was split by node, but processes share out whole"):
        loader({"x": half}, accelerator=Process(2, 0))


@pytest.mark.parametrize(("dataset", "message"), REFUSED)
def test_what_cannot_be_trained_on_is_named(dataset: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=message):
        data(dataset)


def test_the_proposed_features_help() -> None:
    features = Dataset.from_list([{"text": "a", "label": 1}]).features
    assert read(loader(featureless().cast(features))) == [["a/1"]]


def test_a_transform_may_give_the_texts() -> None:
    numbers = Dataset.from_dict({"label": [1, 2, 3]})
    rows = numbers.with_transform(lambda batch: {"text": [f"number {label}" for label in batch["label"]]})
    assert read(loader(rows)) == [["number 1", "number 3"], ["number 2"]]
    assert fingerprint(data(rows)) != fingerprint(data(numbers.with_transform(lambda batch: {"text": batch["label"]})))


def test_fingerprints_tell_other_data() -> None:
    def of(dataset: Anything) -> str:
        return fingerprint(data(dataset))

    def stream(letter: str, count: int) -> IterableDataset:
        return texts(letter, count).to_iterable_dataset()

    rows, several = texts("a", 9), {"x": texts("a", 9), "y": texts("b", 4)}
    assert of(rows) == of(texts("a", 9)) == of(list(rows))
    changed = [{"a": "other"}, *list(rows)[1:]]
    longer = {**several, "y": texts("b", 5)}
    other = [rows.select(range(8)), changed, rows.rename_column("a", "b"), {"": rows}, {"x": rows}, several]
    other += [dict(reversed(several.items())), {"z": texts("a", 9), "y": texts("b", 4)}, longer]
    other += [stream("a", 9), stream("b", 9), stream("a", 3), {"x": stream("a", 9)}]
    found = [of(rows), *map(of, other)]
    assert len(set(found)) == len(found)
    assert of(stream("a", 9)) == of(stream("a", 9))


def test_a_fingerprint_leaves_generators_and_streams_as_they_were() -> None:
    source = texts("a", 6)
    stream = source.to_iterable_dataset().map(lambda row: {"a": row["a"] + "!"}, features=source.features)
    noisy = source.with_transform(lambda batch: {"a": [f"{text} {torch.rand(())}" for text in batch["a"]]})
    reader = iter(stream)
    assert [next(reader)["a"] for _ in range(2)] == ["a0!", "a1!"]
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert fingerprint(data(stream)) == fingerprint(data(stream))
    assert fingerprint(data(noisy)) == fingerprint(data(noisy))
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert [row["a"] for row in reader] == ["a2!", "a3!", "a4!", "a5!"]


def test_reading_leaves_the_epoch_and_the_place_of_a_stream_to_the_user() -> None:
    stream = texts("a", 6).to_iterable_dataset(num_shards=2).shuffle(seed=1, buffer_size=3)
    stream.set_epoch(4)
    expected = [row["a"] for row in stream]
    reader = iter(stream)
    first = [next(reader)["a"] for _ in range(2)]
    for kind in (stream, {"x": stream}):
        batches = loader(kind)
        assert read(batches, 1) != read(batches, 2)
        fingerprint(data(kind))
    assert stream.epoch == 4
    assert [row["a"] for row in stream] == expected
    assert first + [row["a"] for row in reader] == expected


def test_a_place_the_user_noted_in_a_stream_stays_right() -> None:
    stream = texts("a", 6).to_iterable_dataset()
    reader = iter(stream)
    assert [next(reader)["a"] for _ in range(2)] == ["a0", "a1"]
    read(loader(stream))
    fingerprint(data(stream))
    assert next(reader)["a"] == "a2"
    again = texts("a", 6).to_iterable_dataset()
    again.load_state_dict(stream.state_dict())
    assert [row["a"] for row in again] == ["a3", "a4", "a5"]


def test_the_order_of_streams_is_a_name(caplog: pytest.LogCaptureFixture) -> None:
    assert stream_order("batch_sampler", "round_robin") is MultiDatasetBatchSamplers.ROUND_ROBIN
    assert not caplog.messages
    assert stream_order("no_duplicates", "proportional") is MultiDatasetBatchSamplers.PROPORTIONAL
    assert ["has no effect: rows of a stream are taken as they come" in each for each in caplog.messages] == [True]
    with pytest.raises(ValueError, match=r"must be one of \['round_robin', 'proportional'\] for streams"):
        stream_order("batch_sampler", dict)
