"""Lists of words, windows, offsets and word numbers."""

from __future__ import annotations

from typing import Any

import pytest
from token_classification_helpers import tokenizer as small_tokenizer
from tokenizers import models

from sparse_encoder.checkpoint import TokenizerError
from sparse_encoder.tokenizer import Tokenizer


def tokenizer(**config: Any) -> Tokenizer:  # noqa: ANN401 - fields of TokenizerConfig
    return small_tokenizer(**{"model_max_length": 6, **config})


WORDS = ["Zoë", "Sylvain", "works", "at", "."]


def test_words_keep_their_numbers_and_offsets_count_within_them() -> None:
    output = tokenizer()(WORDS, is_split_into_words=True, return_offsets_mapping=True)
    assert output.tokens() == ["[CLS]", "zoe", "sy", "##lva", "##in", "works", "at", ".", "[SEP]"]
    assert output.word_ids() == [None, 0, 1, 1, 1, 2, 3, 4, None]
    assert output.offset_mapping[1:5] == [(0, 3), (0, 2), (2, 5), (5, 7)]
    assert output.is_fast


def test_an_empty_word_has_no_tokens() -> None:
    output = tokenizer()([["", "a", "at"], []], is_split_into_words=True)
    assert output.word_ids(0) == [None, 1, 2, None]
    assert output.word_ids(1) == [None, None]


def test_what_is_too_long_goes_on_in_rows_that_overlap() -> None:
    output = tokenizer()(
        [WORDS, ["a"]], is_split_into_words=True, truncation=True, stride=2, return_overflowing_tokens=True
    )
    assert [output.tokens(row) for row in range(4)] == [
        ["[CLS]", "zoe", "sy", "##lva", "##in", "[SEP]"],
        ["[CLS]", "##lva", "##in", "works", "at", "[SEP]"],
        ["[CLS]", "works", "at", ".", "[SEP]"],
        ["[CLS]", "a", "[SEP]"],
    ]
    assert output.word_ids(1) == [None, 1, 1, 2, 3, None]
    assert output.overflow_to_sample_mapping == [0, 0, 0, 1]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_belongs_to_no_word_and_is_special(side: str) -> None:
    output = tokenizer(padding_side=side)(
        ["at a", "a"], padding=True, return_special_tokens_mask=True, return_offsets_mapping=True, return_tensors="pt"
    )
    missing = [None]
    assert output.word_ids(1) == [*missing, None, 0, None] if side == "left" else [None, 0, None, *missing]
    assert output.special_tokens_mask.tolist()[1] == ([1, 1, 0, 1] if side == "left" else [1, 0, 1, 1])
    assert output.offset_mapping.shape == (2, 4, 2)
    assert output.offset_mapping[0].tolist() == [[0, 0], [0, 2], [3, 4], [0, 0]]


def test_windows_of_a_text_cover_every_token() -> None:
    text = "at a . works " * 40
    batch = tokenizer().encode_windows([text], stride=1)
    words = {word for row in batch.word_ids for word in row if word is not None}
    assert words == set(range(160))
    assert batch.samples is not None and set(batch.samples) == {0}


def test_surrogates_are_mended_within_words() -> None:
    batch = tokenizer().encode_windows([["a\ud800", "at"]], is_split_into_words=True)
    assert batch.word_ids[0][-2] == 1


@pytest.mark.parametrize("stride", [-1, 4, 100])
def test_a_stride_must_let_windows_move_on(stride: int) -> None:
    with pytest.raises(ValueError, match=rf"between 0 and 3, so that windows move on, got {stride}"):
        tokenizer().encode_windows(["a"], stride=stride)
    tokenizer().encode_windows(["a " * 9], stride=3)


@pytest.mark.parametrize(
    ("texts", "message"),
    [("a", "a list of lists"), (["a"], r"texts\[0\] must be a list of words"), ([["a"], [1]], r"texts\[1\]\[0\] must")],
)
def test_words_must_be_words(texts: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        tokenizer().encode_windows(texts, is_split_into_words=True)  # type: ignore[arg-type]


def test_options_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="stride needs truncation=True"):
        tokenizer()("a", stride=1)
    with pytest.raises(ValueError, match="text_pair does not go with"):
        tokenizer()(["a"], ["a"], is_split_into_words=True)


def test_an_error_of_the_backend_is_typed() -> None:
    bad = tokenizer()
    bad.backend.model = models.WordPiece({"[PAD]": 0, "[CLS]": 2, "[SEP]": 3}, unk_token="[UNK]")
    with pytest.raises(TokenizerError, match="cannot be encoded"):
        bad.encode_windows([["q"]], is_split_into_words=True)
