"""Rows become batches here and with sentence-transformers: the same names, columns, prompts, routes and tensors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict, IterableDatasetDict
from model_helpers import write_masked_language_model

from sparse_encoder import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
from sparse_encoder.training import SparseEncoderDataCollator
from sparse_encoder.training.data import names

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.data_collator import BaseDataCollator
    from sentence_transformers.sparse_encoder.trainer import SparseEncoderTrainer as PeerTrainer
    from sentence_transformers.sparse_encoder.training_args import SparseEncoderTrainingArguments as PeerArguments

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

Anything = Any  # arguments of either library
PROMPTS: list[Any] = [
    None,
    "",
    "query ",
    {},
    {"question": "what ", "answer": ""},
    {"pairs": "query ", "question": "what "},
    {"question": "the dataset "},
    {"pairs": {"question": "what "}, "others": {"answer": "text "}},
    {"pairs": {}, "question": {"answer": "text "}},
]
ROUTES: list[Any] = [
    None,
    {},
    {"question": "query", "answer": "document"},
    {"answer": "document"},
    {"pairs": {"question": "query"}, "others": {}},
]
NAMES = [None, "pairs", "others", "question"]
LIMITS: list[Any] = [None, 5, {"query": 4}]
ROWS = [
    {"question": "rain or sun in the river", "answer": "a cloud of flour", "label": 1.0},
    {"question": "search", "answer": "index of terms with a weight for sparse and dense vectors", "label": 0.5},
]


@dataclass
class Arguments:
    prompts: Any = None
    router_mapping: Any = field(default_factory=dict)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The same weights and tokenizer in either library."""
    folder = str(write_masked_language_model(tmp_path_factory.mktemp("model") / "plain"))
    return SparseEncoder(folder, device="cpu"), peer.SparseEncoder(folder, device="cpu")


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(found[key], value), key
        elif key == "dataset_name" or key.endswith("_task"):
            assert found[key] == value
    tasks = {key for key in expected if key.endswith("_task")}
    assert {key for key in found if key.endswith("_task")} == tasks
    assert ("dataset_name" in found) is ("dataset_name" in expected)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", NAMES)
def test_batches_have_the_tensors_and_tasks_of_the_peer(
    name: str | None, limit: Anything, models: tuple[Any, Any]
) -> None:
    ours, theirs = models
    named = {} if name is None else {"dataset_name": name}
    rows = [{column: row[column] for column in ("question", "answer", "label")} | named for row in ROWS]
    differing = 0
    for prompts, routes in product(PROMPTS, ROUTES):
        options = {"prompts": prompts, "router_mapping": routes, "max_length": limit}
        collate = SparseEncoderDataCollator(ours.preprocess, **options)
        try:
            expected = BaseDataCollator(theirs.preprocess, **options)(rows)
        except ValueError:
            with pytest.raises(ValueError, match="prompts are nested"):
                collate(rows)
            differing += 1
            continue
        same(collate(rows), expected)
    assert differing == (2 * len(ROUTES) if name is None else 0)


@pytest.mark.parametrize("columns", [("label", "score"), ("scores", "label"), ("score", "labels", "scores")])
def test_the_label_column_is_that_of_the_peer(columns: tuple[str, ...]) -> None:
    def preprocess(texts: list[Any], prompt: object, task: object) -> dict[str, Any]:
        return {"input_ids": torch.tensor(texts).reshape(len(texts), -1)}

    rows = [{name: row + 0.25 * place for place, name in enumerate(columns)} for row in (1, 2, 3)]
    same(SparseEncoderDataCollator(preprocess)(rows), BaseDataCollator(preprocess)(rows))


BATCHES: list[Any] = [{}, {"text": []}, {"text": ["a", "b"], "label": [0, 1]}, {"label": [1.5]}]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", [None, "", "pairs"])
@pytest.mark.parametrize("transform", [None, lambda batch: {"upper": list(batch.values())[0]} if batch else {}])
def test_the_name_is_added_as_by_the_peer(batch: Anything, name: str | None, transform: Anything) -> None:
    expected = PeerTrainer.add_dataset_name_transform(dict(batch), name, transform)
    assert names.add_dataset_name_transform(dict(batch), name, transform) == expected


def data(kind: type[Any]) -> Any:  # noqa: ANN401  (one dataset, or several)
    parts = {name: Dataset.from_list([{"text": f"{name} {i}", "label": i} for i in range(3)]) for name in "xy"}
    if kind is IterableDatasetDict:
        return IterableDatasetDict({name: part.to_iterable_dataset() for name, part in parts.items()})
    return parts["x"] if kind is Dataset else kind(parts)


@pytest.mark.parametrize("loss", [None, {"x": 1}])
@pytest.mark.parametrize("kind", [Dataset, DatasetDict, IterableDatasetDict])
def test_names_are_added_where_the_peer_adds_them(kind: type[Any], loss: Anything) -> None:
    trainer = PeerTrainer.__new__(PeerTrainer)
    for prompts, routes in product(PROMPTS, ROUTES):
        args = Arguments(prompts, routes)
        wanted = bool(trainer.should_dataset_name_column_be_added(data(kind), args, loss))
        assert names.should_dataset_name_column_be_added(data(kind), args, loss) is wanted


@pytest.mark.parametrize("kind", [DatasetDict, IterableDatasetDict])
def test_named_rows_and_features_are_those_of_the_peer(kind: type[Any]) -> None:
    trainer = PeerTrainer.__new__(PeerTrainer)
    trainer.args, trainer.loss = Arguments(), {"x": 1}
    expected = trainer.preprocess_dataset(data(kind))
    found = names.preprocess_dataset(data(kind), args=Arguments(), loss={"x": 1})
    assert list(found) == list(expected)
    for name in "xy":
        assert list(found[name]) == list(expected[name])
        assert found[name].column_names == expected[name].column_names
        assert found[name].features == expected[name].features


def test_reserved_columns_are_refused_as_by_the_peer() -> None:
    trainer = PeerTrainer.__new__(PeerTrainer)
    trainer.args, trainer.loss = Arguments(), None
    for column in ("text", "dataset_name", "return_loss", "name"):
        dataset = Dataset.from_dict({column: ["a"]})
        for check in (trainer.validate_column_names, names.validate_column_names):
            if column in names.RESERVED_COLUMNS:
                with pytest.raises(ValueError, match=column):
                    check(dataset)
            else:
                check(dataset)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_of_a_stream_are_those_of_the_peer(
    shuffled: bool, drop_last: bool, models: tuple[Any, Any], tmp_path: Path
) -> None:
    rows = Dataset.from_list([{"question": f"rain {'sun ' * i}", "answer": "cloud " * (9 - i)} for i in range(10)])
    passes: list[list[list[dict[str, Any]]]] = []
    libraries = ((SparseEncoderTrainer, SparseEncoderTrainingArguments), (PeerTrainer, PeerArguments))
    for model, (trainer, arguments) in zip(models, libraries, strict=True):
        stream = rows.to_iterable_dataset(num_shards=2)
        options = {"max_steps": 6, "per_device_train_batch_size": 4, "use_cpu": True, "report_to": "none"}
        args = arguments(str(tmp_path), dataloader_drop_last=drop_last, **options)
        data = stream.shuffle(seed=3, buffer_size=4) if shuffled else stream
        batches = trainer(model=model, args=args, train_dataset=data).get_train_dataloader()
        passes.append([])
        for epoch in range(2):
            batches.set_epoch(epoch)
            passes[-1].append(list(batches))
    (ours, theirs) = passes
    for found, expected in zip(ours, theirs, strict=True):
        assert len(found) == len(expected) == (2 if drop_last else 3)
        for batch, other in zip(found, expected, strict=True):
            same(batch, other)
