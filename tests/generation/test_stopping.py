"""Criteria end rows by length, time, tokens and texts."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from sparse_encoder.generation import (
    EosTokenCriteria,
    GenerationConfig,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
    validate_stopping_criteria,
)
from sparse_encoder.generation.stopping_building import build_stopping_criteria

IDS = torch.tensor([[1, 4, 1], [1, 1, 4], [4, 4, 5]])
VOCABULARY = ["st", "op", "sto", "pper", "a", " ", "stop", "s", "t", "\n", "n", "é"]


class Letters:
    """Put the pieces of a small vocabulary one behind the other; ids of 100 and more are bytes."""

    def decode(self, ids: list[int]) -> str:
        pieces = (VOCABULARY[each].encode() if each < 100 else bytes([each - 100]) for each in ids)
        return b"".join(pieces).decode(errors="replace")


def test_length() -> None:
    assert MaxLengthCriteria(3)(IDS, None).tolist() == [True] * 3
    assert MaxLengthCriteria(4)(IDS, None).tolist() == [False] * 3
    reminds = MaxLengthCriteria(9, max_position_embeddings=2)
    with pytest.warns(UserWarning, match="there are 3 tokens, and the model knows 2 places"):
        assert reminds(IDS, None).tolist() == [False] * 3
    assert reminds(IDS, None).tolist() == [False] * 3  # told once
    assert MaxLengthCriteria(3, max_position_embeddings=2)(IDS, None).tolist() == [True] * 3


def test_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "time", lambda: now)
    limit, earlier = MaxTimeCriteria(2.0), MaxTimeCriteria(2.0, initial_timestamp=95.0)
    assert limit(IDS, None).tolist() == [False] * 3
    assert earlier(IDS, None).tolist() == [True] * 3
    now = 102.0
    assert limit(IDS, None).tolist() == [False] * 3
    now = 102.1
    assert limit(IDS, None).tolist() == [True] * 3


def test_only_the_newest_token_ends_a_row() -> None:
    assert EosTokenCriteria(4)(IDS, None).tolist() == [False, True, False]
    assert EosTokenCriteria([4, 5])(IDS, None).tolist() == [False, True, True]
    assert EosTokenCriteria(torch.tensor([1]))(IDS, None).tolist() == [True, False, False]
    with pytest.raises(ValueError, match="eos_token_id must hold ids of at least 0"):
        EosTokenCriteria(-1)


@pytest.mark.parametrize(
    ("tokens", "ends"),
    [
        ([0, 1], True),
        ([6], True),
        ([2, 3], True),
        ([4, 5, 6], True),
        ([7, 8, 1], True),
        ([6, 4], False),
        ([6, 6], True),
        ([0, 1, 5], False),
        ([0, 5, 1], False),
        ([0], False),
        ([4, 4], False),
    ],
)
def test_texts(tokens: list[int], ends: bool) -> None:
    text = "".join(VOCABULARY[each] for each in tokens)
    shorter = "".join(VOCABULARY[each] for each in tokens[:-1])
    expected = any(
        text.startswith("stop", place) and place + len("stop") > len(shorter) for place in range(len(text))
    )  # the newest token has a part of it
    assert expected is ends
    assert StopStringCriteria(Letters(), "stop")(torch.tensor([tokens]), None).tolist() == [ends]


def test_texts_of_several_rows_and_several_texts() -> None:
    ids = torch.tensor([[4, 0, 1], [4, 4, 9], [4, 9, 4]])
    assert StopStringCriteria(Letters(), ["stop", "\n"])(ids, None).tolist() == [True, True, False]
    assert StopStringCriteria(Letters(), ("a\na",))(ids, None).tolist() == [False, False, True]


def test_texts_whose_characters_are_several_tokens() -> None:
    accent = [100 + byte for byte in "é".encode()]
    ids = torch.tensor([[4, accent[0]], [accent[0], accent[1]], [4, 11]])
    assert StopStringCriteria(Letters(), "é")(ids, None).tolist() == [False, True, True]
    long = torch.tensor([[4] * 40 + [100 + byte for byte in ("é" * 9).encode()]])
    assert StopStringCriteria(Letters(), "é" * 9)(long, None).tolist() == [True]
    assert StopStringCriteria(Letters(), "é" * 9)(long[:, :-1], None).tolist() == [False]


@pytest.mark.parametrize("texts", ["", [], ["a", ""], [1]])
def test_texts_that_are_none(texts: object) -> None:
    with pytest.raises(ValueError, match="stop_strings must be a text or a list of texts"):
        StopStringCriteria(Letters(), texts)  # type: ignore[arg-type]


class FirstRow(StoppingCriteria):
    def __call__(self, input_ids: Tensor, scores: tuple[Tensor, ...] | None, **values: object) -> Tensor:
        return torch.arange(len(input_ids)) == values.get("row", 0)


def test_a_list_ends_what_one_of_it_ends() -> None:
    criteria = StoppingCriteriaList([EosTokenCriteria(4), FirstRow()])
    assert criteria(IDS, None).tolist() == [True, True, False]
    assert criteria(IDS, None, row=2).tolist() == [False, True, True]
    assert StoppingCriteriaList()(IDS, None).tolist() == [False] * 3
    assert StoppingCriteriaList([lambda ids, scores: True])(IDS, None).tolist() == [True] * 3
    assert StoppingCriteriaList([lambda ids, scores: False])(IDS, None).tolist() == [False] * 3
    assert StoppingCriteriaList([FirstRow(), MaxLengthCriteria(7)]).max_length == 7
    assert StoppingCriteriaList([FirstRow()]).max_length is None
    for wrong in (torch.zeros(2), torch.zeros(3, 3)):
        with pytest.raises(ValueError, match="must return a bool or one for each of 3 rows, got shape"):
            StoppingCriteriaList([lambda ids, scores, wrong=wrong: wrong])(IDS, None)
    with pytest.raises(TypeError, match="StoppingCriteria must define __call__"):
        StoppingCriteria()(IDS, None)


def test_criteria_of_a_config() -> None:
    config = GenerationConfig(max_length=9, max_time=2.0, stop_strings="a")
    found = build_stopping_criteria(config, None, Letters(), 5, torch.tensor([4]))
    names = [type(each).__name__ for each in found]
    assert names == ["MaxLengthCriteria", "MaxTimeCriteria", "StopStringCriteria", "EosTokenCriteria"]
    assert isinstance(found[0], MaxLengthCriteria)
    assert (found[0].max_length, found[0].max_position_embeddings) == (9, 5)
    assert build_stopping_criteria(GenerationConfig()) == []
    with pytest.raises(ValueError, match="stop_strings need the tokenizer: give generate\\(\\) the argument tokenizer"):
        build_stopping_criteria(config)


def test_one_of_the_same_type_takes_the_place() -> None:
    mine, other = MaxLengthCriteria(4), FirstRow()
    with pytest.warns(UserWarning, match="the stopping criterion MaxLengthCriteria of the call takes the place"):
        found = build_stopping_criteria(GenerationConfig(max_length=9), [other, mine], eos_token_id=torch.tensor([4]))
    assert found[0] is mine
    assert found[2] is other
    assert len(found) == 3


def test_a_length_is_added_to_criteria_that_lack_one() -> None:
    given = StoppingCriteriaList([MaxTimeCriteria(9.0)])
    assert (validate_stopping_criteria(given, 11).max_length, given.max_length) == (11, None)
    limited = StoppingCriteriaList([MaxLengthCriteria(10)])
    assert validate_stopping_criteria(limited, 10) == limited
    with pytest.warns(UserWarning, match="max_length is 11, and the stopping criteria say 10"):
        assert validate_stopping_criteria(limited, 11).max_length == 10
