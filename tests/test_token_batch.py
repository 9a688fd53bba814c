from __future__ import annotations

import numpy as np
import pytest
import torch
from text_helpers import CLS, PAD, SEP, SPARSE, A, B, bert_tokenizer

from sparse_encoder.tokenizer import TokenBatch, padded_length


@pytest.mark.parametrize(
    ("tokens", "longest", "padded"),
    [(0, 512, 16), (1, 512, 16), (16, 512, 16), (17, 512, 32), (512, 512, 512), (500, 510, 510), (3, 8, 8)],
)
def test_padded_length_is_the_next_multiple_of_16_clipped(tokens: int, longest: int, padded: int) -> None:
    assert padded_length(tokens, longest) == padded


def test_a_batch_holds_what_was_encoded() -> None:
    batch = bert_tokenizer().encode_batch(["sparse a", "", "b"])
    assert len(batch) == 3
    assert batch.lengths == [4, 2, 3]
    assert batch.input_ids == [[CLS, SPARSE, A, SEP], [CLS, SEP], [CLS, B, SEP]]
    assert batch.token_type_ids == [[0] * 4, [0] * 2, [0] * 3]
    assert batch.special_tokens_mask == [[1, 0, 0, 1], [1, 1], [1, 0, 1]]
    assert batch.word_ids == [[None, 0, 1, None], [None, None], [None, 0, None]]
    assert batch.offsets[0] == [(0, 0), (0, 6), (7, 8), (0, 0)]


def test_pairs_have_token_types() -> None:
    batch = bert_tokenizer().encode_batch(["a", "b b"], ["b", "a"])
    assert batch.input_ids == [[CLS, A, SEP, B, SEP], [CLS, B, B, SEP, A, SEP]]
    assert batch.token_type_ids == [[0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1]]
    assert batch.pad()["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1]]


def test_pad_fills_on_the_right() -> None:
    padded = bert_tokenizer().encode_batch(["sparse a", "", "b"]).pad([2, 0], length=5)
    assert list(padded) == ["input_ids", "token_type_ids", "attention_mask"]
    assert padded["input_ids"].tolist() == [[CLS, B, SEP, PAD, PAD], [CLS, SPARSE, A, SEP, PAD]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    assert padded["token_type_ids"].tolist() == [[0] * 5, [0] * 5]
    assert all(tensor.dtype == torch.int64 for tensor in padded.values())


def test_pad_fills_on_the_left() -> None:
    padded = bert_tokenizer(padding_side="left").encode_batch(["sparse a", "b"]).pad(length=5)
    assert padded["input_ids"].tolist() == [[PAD, CLS, SPARSE, A, SEP], [PAD, PAD, CLS, B, SEP]]
    assert padded["attention_mask"].tolist() == [[0, 1, 1, 1, 1], [0, 0, 1, 1, 1]]


def test_pad_goes_to_the_longest_of_the_rows() -> None:
    batch = bert_tokenizer().encode_batch(["sparse a", "", "b"])
    assert batch.pad()["input_ids"].shape == (3, 4)
    assert batch.pad([1])["input_ids"].tolist() == [[CLS, SEP]]
    assert batch.pad([])["input_ids"].shape == (0, 0)
    assert batch.pad([], length=16)["attention_mask"].shape == (0, 16)


def test_pad_refuses_to_cut() -> None:
    with pytest.raises(ValueError, match="length must be at least 4"):
        bert_tokenizer().encode_batch(["sparse a", "b"]).pad(length=3)


def test_pad_needs_a_padding_token_only_where_there_is_something_to_pad() -> None:
    tokenizer = bert_tokenizer()
    without = TokenBatch(
        flat_ids=np.array([5, 6, 7], dtype=np.int32),
        starts=np.array([0, 1, 3]),
        flat_type_ids=None,
        has_token_type_ids=False,
        pad_token_id=None,
        padding_side="right",
        recall=tokenizer.encode_batch(["a"]).recall,
    )
    assert without.pad([1])["input_ids"].tolist() == [[6, 7]]
    assert list(without.pad([0])) == ["input_ids", "attention_mask"]
    with pytest.raises(ValueError, match="need a padding token"):
        without.pad()


def test_a_padded_row_does_not_depend_on_its_batch() -> None:
    texts = ["a b " * repeat for repeat in range(1, 40)]
    batch = bert_tokenizer().encode_batch(texts)
    for row in (0, 7, 38):
        alone = bert_tokenizer().encode_batch([texts[row]]).pad(length=96)
        together = batch.pad([3, row, 5], length=96)
        assert torch.equal(alone["input_ids"][0], together["input_ids"][1])
        assert torch.equal(alone["attention_mask"][0], together["attention_mask"][1])


def test_an_empty_list_gives_an_empty_batch() -> None:
    batch = bert_tokenizer().encode_batch([])
    assert len(batch) == 0
    assert batch.input_ids == batch.offsets == batch.lengths == []
    assert batch.pad(length=16)["input_ids"].shape == (0, 16)
