from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from data_helpers import Anything, loader, texts
from datasets import Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict, Value

from sparse_encoder.training.data.names import (
    NamedDatasets,
    add_dataset_name_column,
    add_dataset_name_transform,
    is_named,
    maybe_add_dataset_name_column,
    preprocess_dataset,
    should_dataset_name_column_be_added,
)


@dataclass
class Arguments:
    prompts: Any = None
    router_mapping: Any = field(default_factory=dict)


BY_DATASET = Arguments(prompts={"x": "query: "})
TEXTS, LABELS = ["a0", "a1", "a2"], [0.5, 1.5, 2.5]


def labelled() -> Dataset:
    return Dataset.from_dict({"text": TEXTS, "label": LABELS})


def shout(batch: dict[str, list[str]]) -> dict[str, list[str]]:
    return {"text": [text.upper() for text in batch["text"]]}


class Numbered:
    """Rows read by number, of a kind of the user's own."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict[str, str]:
        return {"text": TEXTS[index]}


def test_a_name_is_added_once_for_every_row() -> None:
    batch = {"text": ["a", "b", "c"]}
    assert add_dataset_name_transform(batch, "x") == {"text": ["a", "b", "c"], "dataset_name": ["x", "x", "x"]}
    assert batch == {"text": ["a", "b", "c"]}


def test_a_transform_comes_before_the_name() -> None:
    assert add_dataset_name_transform({"text": ["a"]}, "x", shout) == {"text": ["A"], "dataset_name": ["x"]}
    assert add_dataset_name_transform({"text": ["a"]}, None, shout) == {"text": ["A"]}


@pytest.mark.parametrize("batch", [{}, {"text": []}, {"text": torch.zeros(0)}])
def test_nothing_is_added_without_columns_or_rows(batch: dict[str, Any]) -> None:
    assert add_dataset_name_transform(batch, "x") is batch


WANTED = [
    (Arguments(), None, False),
    (Arguments(), {"x": 1}, True),
    (Arguments(prompts="query: "), None, False),
    (Arguments(prompts={}), None, False),
    (Arguments(prompts={"text": "query: "}), None, True),
    (Arguments(prompts={"x": {"text": "query: "}}), None, True),
    (Arguments(router_mapping={"text": "query"}), None, False),
    (Arguments(router_mapping={"x": {"text": "query"}}), None, True),
    (Arguments(router_mapping=None), None, False),
]


@pytest.mark.parametrize(("args", "loss", "wanted"), WANTED)
def test_names_are_wanted_if_something_goes_by_them(args: Arguments, loss: Anything, wanted: bool) -> None:
    several = DatasetDict({"x": labelled()})
    for data in (several, dict(several), IterableDatasetDict({"x": labelled().to_iterable_dataset()})):
        assert should_dataset_name_column_be_added(data, args, loss) is wanted
        assert is_named(maybe_add_dataset_name_column(data, args=args, loss=loss)) is wanted
    assert not should_dataset_name_column_be_added(labelled(), args, loss)
    single = labelled()
    assert maybe_add_dataset_name_column(single, args=args, loss=loss) is single
    named = maybe_add_dataset_name_column(single, dataset_name="x", args=args, loss=loss)
    assert named[0].get("dataset_name") == ("x" if wanted else None)


def test_prompts_and_routes_of_the_call_come_before_those_of_the_arguments() -> None:
    data = DatasetDict({"x": labelled()})
    assert is_named(preprocess_dataset(data, {"x": "query: "}, args=Arguments(), loss=None))
    assert is_named(preprocess_dataset(data, None, {"x": {"text": "query"}}, args=Arguments(), loss=None))
    assert preprocess_dataset(data, "query: ", args=BY_DATASET, loss=None) is data


def formats() -> dict[str, Dataset]:
    plain = labelled()
    return {
        "plain": plain,
        "torch": plain.with_format("torch"),
        "some columns": plain.with_format("numpy", columns=["label"], output_all_columns=True),
        "transform": plain.with_transform(shout),
        "selected": plain.with_format("torch").select([2, 0, 1]),
        "rows left out": plain.with_format(columns=["text"]),
    }


def state(dataset: Dataset) -> Anything:
    names = ("_fingerprint", "_format_type", "_format_kwargs", "_format_columns", "_output_all_columns")
    return [copy.copy(getattr(dataset, name)) for name in names] + [list(dataset.column_names), dataset.features.copy()]


@pytest.mark.parametrize("kind", formats())
def test_rows_keep_their_format_and_the_user_keeps_the_dataset(kind: str) -> None:
    dataset = formats()[kind]
    before, rows = state(dataset), dataset.__getitems__([0, 1, 2])  # as a loader reads them
    data = DatasetDict({"x": dataset})
    view = preprocess_dataset(data, args=BY_DATASET, loss=None)
    for row, found in zip(rows, view["x"].__getitems__([0, 1, 2]), strict=True):
        assert found.pop("dataset_name") == "x"
        assert list(found) == list(row)
        for name, value in row.items():
            assert type(found[name]) is type(value)
            assert found[name] == value
    assert view["x"][2]["dataset_name"] == "x"
    assert data["x"] is dataset
    assert state(dataset) == before
    assert not hasattr(data, "_sparse_encoder_named")
    assert dataset.__getitems__([0, 1, 2]) == rows
    assert view["x"].column_names == dataset.column_names


@pytest.mark.parametrize("kind", ["arrow", "pandas"])
def test_tables_become_rows(kind: str) -> None:
    dataset = labelled().with_format(kind)
    view = preprocess_dataset({"x": dataset}, args=BY_DATASET, loss=None)
    assert view["x"][1] == {"text": "a1", "label": 1.5, "dataset_name": "x"}
    assert dataset.format["type"] == kind


@pytest.mark.parametrize("kind", [None, "torch", "numpy"])
def test_streams_keep_their_format_and_the_user_keeps_the_features(kind: str | None) -> None:
    stream = labelled().to_iterable_dataset().with_format(kind)
    features, rows = stream.features.copy(), list(stream)
    data = IterableDatasetDict({"x": stream})
    view = preprocess_dataset(data, args=BY_DATASET, loss=None)
    assert isinstance(view, IterableDatasetDict)
    found = list(view["x"])
    assert [row.pop("dataset_name") for row in found] == ["x"] * 3
    assert found == rows
    assert isinstance(found[0]["label"], torch.Tensor) is (kind == "torch")
    assert view["x"].features == Features({**features, "dataset_name": Value("string")})
    assert stream.features == features
    assert list(stream) == rows
    assert data["x"] is stream


def test_a_second_call_changes_nothing() -> None:
    for data in ({"x": labelled()}, {"x": labelled().to_iterable_dataset()}, {"x": Numbered()}):
        once = preprocess_dataset(data, args=BY_DATASET, loss=None)
        assert preprocess_dataset(once, args=BY_DATASET, loss=None) is once
        assert preprocess_dataset(once["x"], args=BY_DATASET, loss=None, dataset_name="y") is once["x"]
        assert next(iter(once["x"]))["dataset_name"] == "x"


def test_two_trainers_on_one_dataset_do_not_meet() -> None:
    data = DatasetDict({"x": labelled(), "y": labelled()})
    first = preprocess_dataset(data, args=BY_DATASET, loss=None)
    second = preprocess_dataset({"z": data["x"]}, args=BY_DATASET, loss=None)
    assert (first["x"][0]["dataset_name"], second["z"][0]["dataset_name"]) == ("x", "z")
    assert "dataset_name" not in data["x"][0]


def test_plain_dicts_become_the_kind_of_their_datasets() -> None:
    args = Arguments()
    assert type(preprocess_dataset({"x": labelled()}, args=args, loss=None)) is DatasetDict
    streams = {"x": labelled().to_iterable_dataset()}
    assert type(preprocess_dataset(streams, args=args, loss=None)) is IterableDatasetDict
    mixed = preprocess_dataset({"x": Numbered(), "y": [{"text": "b"}]}, args=BY_DATASET, loss=None)
    assert type(mixed) is NamedDatasets
    assert [mixed["x"][2], mixed["y"][0]] == [
        {"text": "a2", "dataset_name": "x"},
        {"text": "b", "dataset_name": "y"},
    ]


def test_nothing_and_one_dataset_stay_what_they_are() -> None:
    single = labelled()
    assert preprocess_dataset(None, args=BY_DATASET, loss=None) is None
    assert preprocess_dataset(single, args=BY_DATASET, loss={"x": None}) is single
    assert add_dataset_name_column(single) is single


@pytest.mark.parametrize("name", ["dataset_name", "return_loss"])
def test_reserved_columns_are_refused_by_the_name_of_the_dataset(name: str) -> None:
    bad = Dataset.from_dict({"text": ["a"], name: ["b"]})
    for part in (bad, bad.to_iterable_dataset()):
        with pytest.raises(ValueError, match=rf"'x' has columns with reserved names, \['{name}'\]"):
            preprocess_dataset({"x": part}, args=Arguments(), loss=None)
        with pytest.raises(ValueError, match="'y' has columns with reserved names"):
            preprocess_dataset(part, dataset_name="y", args=Arguments(), loss=None)


def test_a_stream_without_features_is_told_how_to_get_them() -> None:
    stream = IterableDataset.from_generator(lambda: iter([{"text": "a", "label": 1}]))
    message = r"'x' has no features; .* stream.cast\(datasets.Features\(\{'text': .*string.*, 'label': .*int64"
    with pytest.raises(ValueError, match=message):
        add_dataset_name_column({"x": stream})


def test_other_kinds_are_named() -> None:
    with pytest.raises(ValueError, match="'x' is of no supported kind, int"):
        add_dataset_name_column({"x": 3})


def test_named_rows_can_go_to_workers() -> None:
    for dataset in formats().values():
        view = add_dataset_name_column(dataset, "x")
        assert pickle.loads(pickle.dumps(view))[0]["dataset_name"] == "x"


def test_named_datasets_are_loaded() -> None:
    several = {"x": texts("a", 3), "y": texts("b", 3)}
    for data in (several, {name: part.to_iterable_dataset() for name, part in several.items()}):
        named = preprocess_dataset(data, args=BY_DATASET, loss=None)
        rows = {row for batch in loader(named) for row in batch["rows"]}
        assert rows == {f"a{i}/x" for i in range(3)} | {f"b{i}/y" for i in range(3)}


def test_arrays_of_rows_keep_their_shape() -> None:
    dataset = Dataset.from_dict({"text": ["a", "b"], "scores": [[1.0, 2.0], [3.0, 4.0]]}).with_format("numpy")
    row = add_dataset_name_column(dataset, "x")[1]
    np.testing.assert_array_equal(row["scores"], [3.0, 4.0])
    assert row["scores"].dtype == dataset[1]["scores"].dtype


def test_the_version_of_datasets_still_has_what_is_read_of_streams() -> None:
    assert labelled().to_iterable_dataset().with_format("torch")._formatting.format_type == "torch"
    assert datasets.Dataset.from_dict({"a": [1]}).format.keys() >= {"type", "format_kwargs", "columns"}
