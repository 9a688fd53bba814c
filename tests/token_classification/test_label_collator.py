"""Batches of rows with a label for every token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from token_classification_helpers import tokenizer

from sparse_encoder.token_classification import DataCollatorForTokenClassification

transformers = pytest.importorskip("transformers")

DOCUMENTED = [[-100, 3, 0, 7, 0, 0, 0, 7, 0, 0, 0, -100], [-100, 1, 2, -100]]


def rows(name: str | None = "labels") -> list[dict[str, Any]]:
    made = []
    for labels in DOCUMENTED:
        row = {
            "input_ids": list(range(2, 2 + len(labels))),
            "token_type_ids": [0] * len(labels),
            "attention_mask": [1] * len(labels),
        }
        made.append(row if name is None else {**row, name: labels})
    return made


def test_the_documented_batch() -> None:
    batch = DataCollatorForTokenClassification(tokenizer())(rows())
    assert batch["labels"].tolist() == [DOCUMENTED[0], DOCUMENTED[1] + [-100] * 8]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("options", [{}, {"pad_to_multiple_of": 8}, {"padding": "max_length", "max_length": 15}])
@pytest.mark.parametrize("labelled", [True, False])
def test_the_tensors_of_transformers(side: str, options: dict[str, Any], labelled: bool) -> None:
    ours = tokenizer(padding_side=side)
    peer = transformers.PreTrainedTokenizerFast(tokenizer_object=ours.backend, pad_token="[PAD]", padding_side=side)
    given = rows("labels" if labelled else None)
    found = DataCollatorForTokenClassification(ours, **options)(given)
    wanted = transformers.DataCollatorForTokenClassification(peer, **options)([dict(row) for row in given])
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        assert torch.equal(found[key], value), key
        assert found[key].dtype == torch.int64


def test_labels_have_one_name_and_tensors_are_taken() -> None:
    given = [{name: torch.tensor(value) for name, value in row.items()} for row in rows("label")]
    batch = DataCollatorForTokenClassification(tokenizer(), label_pad_token_id=-1, return_tensors="np")(given)
    assert batch["labels"].tolist()[1] == DOCUMENTED[1] + [-1] * 8
    assert "label" not in batch


def test_rows_must_have_a_label_for_each_token() -> None:
    collate = DataCollatorForTokenClassification(tokenizer())
    with pytest.raises(ValueError, match="row 1 must have a label for each of its 4 tokens, got 3"):
        collate([rows()[0], {**rows()[1], "labels": [1, 2, 3]}])
    with pytest.raises(ValueError, match="row 1 must have .* got none"):
        collate([rows()[0], rows(None)[1]])


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([rows(None)[0], rows()[1]], "row 0 must have a label for each of its 12 tokens, got none"),
        ([{"input_ids": [1, 2], "label": 3}], "row 0 must have a label for each of its 2 tokens, got 3"),
        ([{"input_ids": [1], "labels": ["B-PER"]}], "row 0 must have numbers for labels, got"),
        ([{"labels": [0, 0]}], r"row 0 must have a list of input_ids, got the columns \['labels'\]"),
        ([{"input_ids": [1, 2], "ner_tags": [1, 2], "tokens": ["a", "b"], "labels": [0, 0]}], "remove_columns="),
        ([], "at least one row"),
    ],
)
def test_bad_rows_are_named(features: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataCollatorForTokenClassification(tokenizer())(features)


def test_what_goes_with_tokens_is_padded_with_them() -> None:
    given = [
        {"input_ids": [5, 6], "position_ids": [0, 1], "chain_mask": [0, 1], "id": "a", "label": None},
        {"input_ids": [7], "position_ids": [0], "chain_mask": [1], "id": "b", "label": None},
    ]
    batch = DataCollatorForTokenClassification(tokenizer())(given)
    assert batch["chain_mask"].tolist() == [[0, 1], [1, 0]]
    assert batch["position_ids"].tolist() == [[0, 1], [0, 0]]
    assert "id" not in batch and "labels" not in batch


def test_a_tokenizer_must_have_padding() -> None:
    unpadded = tokenizer()
    unpadded.config = replace(unpadded.config, special_tokens={"unk_token": "[UNK]"})
    for given in (unpadded, None):
        with pytest.raises(ValueError, match="must have a padding token"):
            DataCollatorForTokenClassification(given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pad_to_multiple_of": -3}, "pad_to_multiple_of must be at least 1, or None, got -3"),
        ({"pad_to_multiple_of": 0}, "got 0"),
        ({"padding": False}, "padding must be"),
        ({"return_tensors": "tf"}, "unknown"),
        ({"padding": "max_length"}, "needs"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataCollatorForTokenClassification(tokenizer(), **options)
