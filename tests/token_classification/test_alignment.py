"""Labels of words onto tokens."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from token_classification_helpers import LABELS, tokenizer

from sparse_encoder.token_classification import (
    align_labels_with_tokens,
    get_label_names,
    label_maps,
    tokenize_and_align_labels,
)

COURSE = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]


def test_the_documented_sentence() -> None:
    word_ids = [None, 0, 1, 2, 3, 4, 5, 6, 7, 7, 8, None]
    labels = [3, 0, 7, 0, 0, 0, 7, 0, 0]
    expected = [-100, 3, 0, 7, 0, 0, 0, 7, 0, 0, 0, -100]
    assert align_labels_with_tokens(labels, word_ids, label_names=COURSE) == expected
    assert align_labels_with_tokens([COURSE[label] for label in labels], word_ids, label_names=COURSE) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [-100, 1, 3, 3, 2, 0, 0, -100]),
        ({"strategy": "first"}, [-100, 1, -100, -100, 2, 0, -100, -100]),
        ({"b_to_i": False}, [-100, 1, 1, 1, 2, 0, 0, -100]),
        ({"starts_inside": True}, [-100, 3, 3, 3, 2, 0, 0, -100]),
        ({"starts_inside": True, "strategy": "first"}, [-100, -100, -100, -100, 2, 0, -100, -100]),
        ({"ignore_index": -1}, [-1, 1, 3, 3, 2, 0, 0, -1]),
    ],
)
def test_further_tokens_of_a_word_go_on_by_name(options: dict[str, object], expected: list[int]) -> None:
    names = ["O", "B-PER", "B-GPE-LOC", "I-PER"]  # no odd and even, and no I- for one type
    word_ids = [None, 0, 0, 0, 1, 2, 2, None]
    assert align_labels_with_tokens([1, 2, 0], word_ids, label_names=names, **options) == expected  # type: ignore[arg-type]


def test_a_type_without_an_inside_label_stays_what_it_is() -> None:
    assert align_labels_with_tokens([1], [0, 0], label_names=["O", "B-X"]) == [1, 1]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([1], {"label_names": ["O", "B-X"]}, "a label for each word, got 1 labels and word 1"),
        (["B-Y", "O"], {"label_names": ["O", "B-X"]}, "word 0: unknown label 'B-Y'; choose from"),
        ([0, 2], {"label_names": ["O", "B-X"]}, "word 1: a label must be a name or a number between 0 and 1, got 2"),
        ([0, -100], {}, "word 1: a label must be"),
        ([0, 1], {}, "label_names are needed"),
        ([0, 0], {"strategy": "last"}, "unknown strategy 'last'; choose from"),
    ],
)
def test_bad_labels_are_named(labels: list[int], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        align_labels_with_tokens(labels, [0, 1, 1], **options)  # type: ignore[arg-type]


def test_a_dataset_is_tokenized_and_labelled() -> None:
    rows = {"tokens": [["Sylvain", "works"], [], ["zoe", "\u200b", "at"]], "ner_tags": [[1, 0], [], [3, 0, 0]]}
    dataset = Dataset.from_dict(rows).map(
        lambda batch: tokenize_and_align_labels(batch, tokenizer(), label_names=LABELS),
        batched=True,
        remove_columns=["tokens", "ner_tags"],
    )
    assert dataset["labels"][:] == [[-100, 1, 2, 2, 0, -100], [-100, -100], [-100, 3, 0, -100]]
    assert sorted(dataset.column_names) == ["attention_mask", "input_ids", "labels", "token_type_ids"]


@pytest.mark.parametrize("strategy", ["all", "first"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("stride", [0, 1, 2])
def test_tokens_of_windows_have_the_labels_they_have_in_the_whole(strategy: str, side: str, stride: int) -> None:
    draw = random.Random(5)
    words = ["Sylvain", "zoe", "works", "at", "sylva", "\u200b"]
    rows = [draw.choices(words, k=draw.randint(0, 9)) for _ in range(60)]
    examples = {"tokens": rows, "ner_tags": [[draw.randrange(len(LABELS)) for _ in row] for row in rows]}
    whole = tokenize_and_align_labels(examples, tokenizer(), max_length=99, label_names=LABELS, strategy=strategy)
    found = tokenize_and_align_labels(
        examples, tokenizer(truncation_side=side), max_length=6, stride=stride, label_names=LABELS, strategy=strategy
    )
    samples = found["overflow_to_sample_mapping"]
    for sample in range(60):
        ids, labels = whole["input_ids"][sample][1:-1], whole["labels"][sample][1:-1]
        own = [row for row in range(len(samples)) if samples[row] == sample]
        for number, row in enumerate(own):
            moved = number * (4 - stride)
            begin = moved if side == "right" else max(0, len(ids) - 4 - moved)
            end = begin + 4 if side == "right" else len(ids) - moved
            assert found["input_ids"][row][1:-1] == ids[begin:end]
            assert found["labels"][row][1:-1] == labels[begin:end]


def test_truncation_on_the_left_leaves_the_rest_of_a_word() -> None:
    rows = {"tokens": [["zoe", "Sylvain"]], "ner_tags": [["O", "B-PER"]]}
    found = tokenize_and_align_labels(rows, tokenizer(truncation_side="left"), label_names=LABELS, max_length=4)
    assert found["labels"] == [[-100, 2, 2, -100]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"tokens": [["a"], ["a", "at"]], "ner_tags": [[0], [0]]}, "sentence 1 must have a label for each word, got 2"),
        ({"tokens": [["a"], ["a"]], "ner_tags": [[0], [9]]}, "sentence 1: word 0: a label must be"),
        ({"tokens": [["a"]]}, "there is no column 'ner_tags'; choose from"),
    ],
)
def test_bad_sentences_are_named(rows: dict[str, list[list[object]]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tokenize_and_align_labels(rows, tokenizer(), label_names=LABELS)


@pytest.mark.parametrize("names", [("B", "I", "E", "S"), ("B", "I", "L", "U")])
def test_words_end_on_their_last_token_in_schemes_with_ends(names: tuple[str, ...]) -> None:
    label_names = ["O", *(f"{prefix}-X" for prefix in names)]
    b, i, e, s = 1, 2, 3, 4

    aligned = partial(align_labels_with_tokens, label_names=label_names)

    assert aligned([s, s], [0, 0, 0, 1]) == [b, i, e, s]
    assert aligned([b, i, e], [None, 0, 0, 1, 1, 2, 2, None]) == [-100, b, i, i, i, i, e, -100]
    assert aligned([s], [0, 0], ends_inside=True) == [b, i]
    assert aligned([s], [0, 0], starts_inside=True) == [i, e]
    assert aligned([e], [0], ends_inside=True) == [i]
    assert aligned([s, 0], [0, 0, 1, 1], b_to_i=False) == [s, s, 0, 0]


def test_windows_keep_the_ends_of_words() -> None:
    names = ["O", "B-X", "I-X", "E-X", "S-X"]
    rows = {"tokens": [["Sylvain", "Sylvain"]], "ner_tags": [["S-X", "O"]]}
    found = tokenize_and_align_labels(rows, tokenizer(), label_names=names, max_length=4, stride=0)
    assert found["labels"] == [[-100, 1, 2, -100], [-100, 3, 0, -100], [-100, 0, 0, -100]]
    truncated = tokenize_and_align_labels(rows, tokenizer(), label_names=names, max_length=4)
    assert truncated["labels"] == [[-100, 1, 2, -100]]


@pytest.mark.parametrize("labels", [np.array([0, 1]), [np.int64(0), np.int32(1)], torch.tensor([0, 1])])
def test_numbers_of_other_libraries_are_labels(labels: object) -> None:
    assert align_labels_with_tokens(labels, [0, 1, 1], label_names=LABELS) == [0, 1, 2]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        ({"tokens": [["a"], ["b"]], "ner_tags": [[0]]}, ValueError, "'tokens' and 'ner_tags' must be as long, got 2"),
        ({"tokens": [["a"], None], "ner_tags": [[0], [0]]}, TypeError, "sentence 1: 'tokens' must be a list, got None"),
        ({"tokens": [["a"], ["b"]], "ner_tags": [[0], None]}, TypeError, "sentence 1: 'ner_tags' must be a list"),
        ({"tokens": ["ab"], "ner_tags": [[0, 0]]}, TypeError, "sentence 0: 'tokens' must be a list, got str"),
        ({"tokens": [["a"], ["a", None]], "ner_tags": [[0], [0, 0]]}, TypeError, "sentence 1, word 1: a word must be"),
    ],
)
def test_columns_that_are_not_lists_of_words_are_named(
    rows: dict[str, list[object]], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        tokenize_and_align_labels(rows, tokenizer(), label_names=LABELS)


def test_names_once_and_good_advice() -> None:
    with pytest.raises(ValueError, match="each name once"):
        align_labels_with_tokens(["B-X"], [0], label_names=["O", "B-X", "B-X"])
    with pytest.raises(ValueError, match="sentence 0: label_names are needed .* strategy='first'"):
        tokenize_and_align_labels({"tokens": [["a"]], "ner_tags": [[1]]}, tokenizer())
    with pytest.raises(TypeError, match="labels must be a list"):
        align_labels_with_tokens(3, [0])  # type: ignore[arg-type]


def test_names_of_labels_out_of_a_dataset() -> None:
    assert get_label_names(Dataset.from_dict({"tags": [["B-X", "O"], ["A"]]}), "tags") == ["O", "A", "B-X"]
    with pytest.raises(ValueError, match="have no names"):
        get_label_names(Dataset.from_dict({"tags": [[0]]}), "tags")
    with pytest.raises(ValueError, match="no column 'ner_tags'; choose from"):
        get_label_names(Dataset.from_dict({"tags": [[0]]}))


def test_names_of_labels_are_those_of_one_dataset() -> None:
    with pytest.raises(TypeError, match=r"got \['test', 'train'\]; choose a split"):
        get_label_names(DatasetDict(train=Dataset.from_dict({}), test=Dataset.from_dict({})))  # type: ignore[arg-type]


def test_label_maps_have_one_form() -> None:
    expected = ({0: "O", 1: "B-X"}, {"O": 0, "B-X": 1})
    assert label_maps({"0": "O", "1": "B-X"}, {"O": "0", "B-X": "1"}) == expected
    assert label_maps(["O", "B-X"]) == expected
    assert label_maps(None, {"B-X": 1, "O": 0}, num_labels=2) == expected
    assert label_maps(None, num_labels=2)[0] == {0: "LABEL_0", 1: "LABEL_1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None,), "must be given"),
        (({1: "O"},), "numbered 0 to n - 1 without holes"),
        ((["O", "O"],), "each once"),
        (({"a": "O"},), "must be whole numbers, got 'a'"),
        (({True: "O"},), "must be whole numbers, got True"),
        ((["O"], {"O": 1}), "label2id must be the reverse"),
        ((["O", "B-X"], {"LABEL_0": 1, "LABEL_1": 0}), "label2id must be the reverse"),
        ((["O", "B-X"], {"LABEL_0": 0}), "label2id must be the reverse"),
        ((["O"], None, 2), "num_labels must be the number of labels, 1, got 2"),
    ],
)
def test_label_maps_that_contradict_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label_maps(*arguments[:2], **({"num_labels": arguments[2]} if len(arguments) > 2 else {}))  # type: ignore[arg-type]


def test_numbers_that_were_left_at_their_defaults_say_nothing() -> None:
    expected = ({0: "O", 1: "B-X"}, {"O": 0, "B-X": 1})
    assert label_maps({"0": "O", "1": "B-X"}, {"LABEL_0": 0, "LABEL_1": 1}) == expected
    with pytest.raises(TypeError, match="id2label must be a list of names"):
        label_maps("ONE")
