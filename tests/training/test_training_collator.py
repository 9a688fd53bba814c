from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from sparse_encoder.backbone.counting import count_tokens
from sparse_encoder.training import SparseEncoderDataCollator
from sparse_encoder.training.data.collator import num_texts, split_columns

Anything = Any  # prompts of any form


class Recorder:
    """Stand in for a model's preprocessing; remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, texts: Sequence[str], prompt: str | None, task: str | None, **limit: int) -> dict[str, Any]:
        self.calls.append((list(texts), prompt, task, limit))
        ids = torch.tensor([[len(text), 1] for text in texts])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


ROWS = [{"question": "a", "answer": "bb"}, {"question": "ccc", "answer": "dddd"}, {"question": "e", "answer": "f"}]


def test_each_column_is_tokenized_once_in_order() -> None:
    preprocess = Recorder()
    batch = SparseEncoderDataCollator(preprocess)(ROWS)
    assert list(batch) == [
        "question_input_ids",
        "question_attention_mask",
        "answer_input_ids",
        "answer_attention_mask",
    ]
    assert preprocess.calls == [(["a", "ccc", "e"], None, None, {}), (["bb", "dddd", "f"], None, None, {})]
    assert batch["answer_input_ids"].tolist() == [[2, 1], [4, 1], [1, 1]]


def test_no_rows_give_an_empty_batch() -> None:
    assert SparseEncoderDataCollator(Recorder())([]) == {}


@pytest.mark.parametrize("name", ["label", "labels", "score", "scores"])
def test_the_first_label_column_becomes_the_label(name: str) -> None:
    batch = SparseEncoderDataCollator(Recorder())([{"text": "a", name: 0.5}, {"text": "b", name: 1.5}])
    assert torch.equal(batch["label"], torch.tensor([0.5, 1.5]))
    assert set(batch) == {"label", "text_input_ids", "text_attention_mask"}


def test_labels_may_be_lists_or_tensors() -> None:
    collate = SparseEncoderDataCollator(Recorder())
    assert collate([{"text": "a", "label": [1.0, 2.0]}])["label"].tolist() == [[1.0, 2.0]]
    assert collate([{"text": "a", "label": torch.tensor([3])}])["label"].tolist() == [[3]]


def test_own_label_columns_are_honoured() -> None:
    batch = SparseEncoderDataCollator(Recorder(), valid_label_columns=["grade"])([{"text": "a", "grade": 3}])
    assert batch["label"].tolist() == [3]


def test_prompts_and_routes_go_by_column() -> None:
    preprocess = Recorder()
    collate = SparseEncoderDataCollator(
        preprocess, prompts={"question": "q: "}, router_mapping={"question": "query", "answer": "document"}
    )
    batch = collate(ROWS[:1])
    assert [call[1:3] for call in preprocess.calls] == [("q: ", "query"), (None, "document")]
    assert (batch["question_task"], batch["answer_task"]) == ("query", "document")


def test_one_prompt_is_for_every_column() -> None:
    preprocess = Recorder()
    SparseEncoderDataCollator(preprocess, prompts="text: ")(ROWS[:1])
    assert [call[1] for call in preprocess.calls] == ["text: ", "text: "]


def test_an_empty_prompt_is_a_prompt() -> None:
    preprocess = Recorder()
    SparseEncoderDataCollator(preprocess, prompts={"question": ""})(ROWS[:1])
    assert [call[1] for call in preprocess.calls] == ["", None]


def test_a_limit_is_for_all_or_by_task() -> None:
    preprocess = Recorder()
    SparseEncoderDataCollator(preprocess, max_length=9)(ROWS[:1])
    SparseEncoderDataCollator(preprocess, max_length={"query": 5}, router_mapping={"question": "query"})(ROWS[:1])
    assert [call[3] for call in preprocess.calls] == [{"max_length": 9}, {"max_length": 9}, {"max_length": 5}, {}]


def test_columns_come_apart_as_they_went_in() -> None:
    batch = SparseEncoderDataCollator(Recorder(), router_mapping={"answer": "document"})(ROWS)
    columns = split_columns(batch)
    assert [set(column) for column in columns] == [
        {"input_ids", "attention_mask"},
        {"input_ids", "attention_mask", "task"},
    ]
    assert columns[1]["input_ids"] is batch["answer_input_ids"]


def test_a_column_name_that_begins_another_is_kept_apart() -> None:
    rows = [{"text": "a", "text_pair": "bb", "label": 1}]
    columns = split_columns(SparseEncoderDataCollator(Recorder())(rows))
    assert [column["input_ids"][0, 0].item() for column in columns] == [1, 2]
    assert [set(column) for column in columns] == [{"input_ids", "attention_mask"}] * 2


@pytest.mark.parametrize("names", [("text", "text_input"), ("text_input", "text"), ("query", "query_token")])
def test_a_column_name_that_looks_like_a_feature_is_kept_apart(names: tuple[str, str]) -> None:
    collate = SparseEncoderDataCollator(
        lambda texts, **_: {**Recorder()(texts, None, None), "token_type_ids": len(texts[0])}
    )
    batch = collate([{names[0]: "a", names[1]: "bb"}])
    assert "column_features" not in batch
    columns = split_columns(batch)
    assert [column["token_type_ids"] for column in columns] == [1, 2]
    assert [column["input_ids"][0, 0].item() for column in columns] == [1, 2]
    assert [set(column) for column in columns] == [{"input_ids", "attention_mask", "token_type_ids"}] * 2


def test_features_that_nobody_knows_are_told_by_the_batch() -> None:
    def preprocess(texts: list[str], prompt: str | None = None, task: str | None = None) -> dict[str, Any]:
        return {"input_ids": torch.tensor([[len(texts[0])]]), "pair_extra": texts[0], "decoder_input_ids": texts[0]}

    batch = SparseEncoderDataCollator(preprocess)([{"text": "a", "text_pair": "bb"}])
    columns = split_columns(batch)
    assert [column["pair_extra"] for column in columns] == ["a", "bb"]
    assert [list(column) for column in columns] == [["input_ids", "pair_extra", "decoder_input_ids"]] * 2


def test_two_features_of_one_name_make_no_batch() -> None:
    def preprocess(texts: list[str], prompt: str | None = None, task: str | None = None) -> dict[str, Any]:
        return {"input_ids": texts, "pair_input_ids": texts}

    with pytest.raises(ValueError, match="two columns have a feature text_pair_input_ids; rename one of"):
        SparseEncoderDataCollator(preprocess)([{"text": "a", "text_pair": "bb"}])


def test_embeddings_in_the_place_of_texts_are_a_column() -> None:
    columns = split_columns({"a_sentence_embedding": 1, "b_input_ids": 2, "b_attention_mask": 3})
    assert columns == [{"sentence_embedding": 1}, {"input_ids": 2, "attention_mask": 3}]


def test_rows_and_tokens_are_counted() -> None:
    batch = SparseEncoderDataCollator(Recorder())(ROWS)
    assert (num_texts(batch), count_tokens(batch)) == (3, 12)
    assert count_tokens({"input_ids": torch.ones(3, 5), "labels": torch.ones(3, 5)}) == 15


@pytest.mark.parametrize(
    "columns", [("positive", "anchor"), ("answer", "question"), ("response", "query"), ("hypothesis", "contradiction")]
)
def test_an_unusual_order_is_told_once(columns: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    collate = SparseEncoderDataCollator(Recorder())
    with caplog.at_level(logging.WARNING):
        collate([dict.fromkeys(columns, "text")])
        collate([dict.fromkeys(columns, "text")])
    assert len(caplog.messages) == 1
    assert "the first column is the query" in caplog.messages[0]


def test_ids_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    collate = SparseEncoderDataCollator(Recorder())
    with caplog.at_level(logging.WARNING):
        collate([{"query": "a", "doc_id": "7"}])
        collate([{"query": "a", "doc_id": "8"}])
    assert [message for message in caplog.messages if "look like ids" in message] == caplog.messages
    assert "['doc_id']" in caplog.messages[0]
    assert len(caplog.messages) == 1


def test_the_usual_order_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        SparseEncoderDataCollator(Recorder())([{"label": 1, "anchor": "a", "positive": "b", "negative": "c"}])
    assert not caplog.messages


def prompts_used(prompts: Anything, *, dataset_name: str | None) -> list[Any]:
    preprocess = Recorder()
    name = {} if dataset_name is None else {"dataset_name": dataset_name}
    SparseEncoderDataCollator(preprocess, prompts=prompts)([{**row, **name} for row in ROWS])
    return [call[1] for call in preprocess.calls]


NESTED = {"x": {"question": "q: "}, "y": "text: ", "z": {}}
PROMPTS = [
    (None, "x", [None, None]),
    ("all: ", "x", ["all: ", "all: "]),
    ({"x": "of x: ", "y": "of y: "}, "x", ["of x: ", "of x: "]),
    ({"x": "of x: "}, "y", [None, None]),
    ({"x": "", "question": "q: "}, "x", ["", ""]),
    ({"x": "of x: ", "question": "q: "}, "y", ["q: ", None]),
    ({"question": "of the dataset: "}, "question", ["of the dataset: ", "of the dataset: "]),
    ({"question": {"answer": "a: "}}, "question", [None, "a: "]),
    (NESTED, "x", ["q: ", None]),
    (NESTED, "y", ["text: ", "text: "]),
    (NESTED, "z", [None, None]),
    (NESTED, "other", [None, None]),
]


@pytest.mark.parametrize(("prompts", "dataset_name", "expected"), PROMPTS)
def test_prompts_go_by_dataset_before_column(prompts: Anything, dataset_name: str, expected: list[Any]) -> None:
    assert prompts_used(prompts, dataset_name=dataset_name) == expected


def test_nested_prompts_need_names_of_datasets() -> None:
    with pytest.raises(ValueError, match=r"prompts are nested, .* keys \['x', 'y', 'z'\], but there is one dataset"):
        prompts_used(NESTED, dataset_name=None)


@pytest.mark.parametrize(
    ("dataset_name", "tasks"), [("x", ["query", None]), ("y", [None, None]), (None, [None, None]), ("z", [None, None])]
)
def test_nested_routes_go_by_dataset(dataset_name: str | None, tasks: list[str | None]) -> None:
    preprocess = Recorder()
    routes = {"x": {"question": "query"}, "y": {}}
    name = {} if dataset_name is None else {"dataset_name": dataset_name}
    limit = {"query": 5}
    collate = SparseEncoderDataCollator(preprocess, router_mapping=routes, max_length=limit)
    batch = collate([{"dataset_name": "other", **ROWS[0], **name}] if name else ROWS[:1])
    assert [call[2] for call in preprocess.calls] == tasks
    assert [call[3] for call in preprocess.calls] == [{"max_length": 5} if task else {} for task in tasks]
    assert [batch.get(f"{column}_task") for column in ROWS[0]] == tasks


def test_the_name_of_the_dataset_is_one_string_and_no_column() -> None:
    preprocess = Recorder()
    batch = SparseEncoderDataCollator(preprocess)([{"dataset": "a", "dataset_name": "x", "label": 1}] * 2)
    assert (batch["dataset_name"], len(preprocess.calls)) == ("x", 1)
    assert [set(column) for column in split_columns(batch)] == [{"input_ids", "attention_mask"}]


def test_rows_of_several_datasets_make_no_batch() -> None:
    rows = [{"text": "a", "dataset_name": "y"}, {"text": "b", "dataset_name": "x"}]
    with pytest.raises(ValueError, match=r"rows of several datasets, \['x', 'y'\]; each needs batches of its own"):
        SparseEncoderDataCollator(Recorder())(rows)


def test_rows_of_other_columns_make_no_batch() -> None:
    message = r"row 1 of a batch, text='b' has the columns \['text', 'pair'\], but the first row of it has \['text'\]"
    with pytest.raises(ValueError, match=message):
        SparseEncoderDataCollator(Recorder())([{"text": "a"}, {"text": "b", "pair": "c"}])


NAN = float("nan")
BAD_LABELS: list[tuple[list[Any], str]] = [
    ([0.5, NAN], "column 'score' is .*nan.*, not finite, in row 1 of a batch, text='row 1'"),
    ([[1.0, 2.0], [NAN, 1.0], [NAN, NAN]], "column 'score' is .*nan.*, not finite, in row 1 of a batch, text='row 1'"),
    ([torch.tensor(NAN), torch.tensor(1.0)], "column 'score' is .*nan.*, not finite, in row 0 of a batch"),
    ([np.float32(1), np.float32("nan")], "column 'score' is .*nan.*, not finite, in row 1 of a batch"),
    ([[1.0, 2.0], [1.0]], r"column 'score' has \(1,\) values in row 1 of a batch, text='row 1', but \(2,\) in the"),
    ([torch.ones(2), torch.ones(3)], r"column 'score' has \(3,\) values in row 1 of a batch"),
    ([[1.0], 1.0], r"column 'score' has \(\) values in row 1"),
    ([[[1.0], [2.0, 3.0]]], "column 'score' holds lists of different lengths in row 0 of a batch"),
    ([1.0, None], "column 'score' is empty in row 1 of a batch"),
    (["good", "bad"], "column 'score' must hold numbers, got 'good'"),
]


@pytest.mark.parametrize(("scores", "message"), BAD_LABELS)
def test_labels_that_no_loss_could_use_are_refused_with_their_row(scores: list[Any], message: str) -> None:
    rows = [{"text": f"row {number}", "score": score} for number, score in enumerate(scores)]
    with pytest.raises(ValueError, match=message):
        SparseEncoderDataCollator(Recorder())(rows)


def test_labels_of_every_kind_keep_their_type() -> None:
    kinds = [
        ([1, 2], torch.int64),
        ([1.0, 2.0], torch.float32),
        ([True, False], torch.bool),
        ([np.float64(1), np.float64(2)], torch.float64),
        ([np.array([1.0, 2.0], dtype=np.float32)] * 2, torch.float32),
        ([torch.tensor(1, dtype=torch.int32)] * 2, torch.int32),
    ]
    for values, dtype in kinds:
        label = SparseEncoderDataCollator(Recorder())([{"text": "a", "label": value} for value in values])["label"]
        assert label.dtype == dtype
        assert label.tolist() == [np.asarray(value).tolist() for value in values]
