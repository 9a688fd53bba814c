"""Warpers by hand: values, edges, bad input and laws."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_encoder.generation import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    LogitsProcessor,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

SCORES = torch.tensor([[2.0, 1, 1, 0.5, -1, -3]])
IDS = torch.tensor([[1, 4, 1]])


def kept(warper: LogitsProcessor, scores: Tensor = SCORES) -> list[int]:
    found = warper(IDS, scores)
    is_kept = found[0].isfinite()
    assert torch.equal(found[0][is_kept], scores[0][is_kept])  # what stays is not changed
    return is_kept.nonzero().flatten().tolist()


def test_temperature() -> None:
    torch.testing.assert_close(TemperatureLogitsWarper(0.5)(IDS, SCORES), SCORES * 2)
    torch.testing.assert_close(TemperatureLogitsWarper(2)(IDS, SCORES), SCORES / 2)


@pytest.mark.parametrize(
    ("warper", "expected"),
    [
        (TopKLogitsWarper(1), [0]),
        (TopKLogitsWarper(2), [0, 1, 2]),  # two are second
        (TopKLogitsWarper(1, min_tokens_to_keep=4), [0, 1, 2, 3]),
        (TopKLogitsWarper(50), [0, 1, 2, 3, 4, 5]),
        (TopPLogitsWarper(0.5), [0, 2]),  # one of two that are equal
        (TopPLogitsWarper(0.8), [0, 1, 2]),
        (TopPLogitsWarper(0.95), [0, 1, 2, 3]),
        (TopPLogitsWarper(1), [0, 1, 2, 3, 4, 5]),
        (TopPLogitsWarper(0.0), [0]),
        (TopPLogitsWarper(0.0, min_tokens_to_keep=2), [0, 2]),
        (MinPLogitsWarper(0.4), [0]),
        (MinPLogitsWarper(0.3), [0, 1, 2]),
        (MinPLogitsWarper(0), [0, 1, 2, 3, 4, 5]),
        (MinPLogitsWarper(1.0, min_tokens_to_keep=50), [0, 1, 2, 3, 4, 5]),
        (TypicalLogitsWarper(0.5), [0, 1, 2]),
        (EpsilonLogitsWarper(0.15), [0, 1, 2]),
        (EpsilonLogitsWarper(0.9), [0]),
        (EpsilonLogitsWarper(0.9, min_tokens_to_keep=2), [0, 1, 2]),
        (EtaLogitsWarper(0.2), [0, 1, 2, 3]),
        (EtaLogitsWarper(0.99), [0, 1, 2]),
    ],
)
def test_what_is_left_by_hand(warper: LogitsProcessor, expected: list[int]) -> None:
    probabilities = [exp(score) for score in SCORES[0].tolist()]
    if isinstance(warper, EtaLogitsWarper):  # its bound, worked out beside it
        shares = [each / sum(probabilities) for each in probabilities]
        entropy = -sum(share * log(share) for share in shares)
        bound = min(warper.epsilon, warper.epsilon**0.5 * exp(-entropy))
        expected = [token for token, share in enumerate(shares) if share >= bound]
    assert kept(warper) == expected


def test_top_h_by_hand() -> None:
    scores = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()  # 0.5, 0.5, 0.41 and 0.33 of 1.74 bits
    assert kept(TopHLogitsWarper(0.2), scores) == [0]
    assert kept(TopHLogitsWarper(0.58), scores) == [0, 1]
    assert kept(TopHLogitsWarper(0.82), scores) == [0, 1, 2]
    wide = torch.zeros(1, 300)
    assert len(kept(TopHLogitsWarper(0.995), wide)) == 99  # of the hundred it looks at


def test_the_value_of_what_is_left_out() -> None:
    assert TopKLogitsWarper(1, filter_value=-7.0)(IDS, SCORES).tolist() == [[2, -7, -7, -7, -7, -7]]
    assert TopPLogitsWarper(0.0, -7.0)(IDS, SCORES).tolist() == [[2, -7, -7, -7, -7, -7]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TemperatureLogitsWarper(0), "temperature must .* got 0; for the likeliest token .* do_sample=False"),
        (lambda: TemperatureLogitsWarper(-1.0), "temperature must be a finite number greater than 0, got -1.0$"),
        (lambda: TemperatureLogitsWarper("1"), "temperature must"),
        (lambda: TemperatureLogitsWarper(float("inf")), "temperature must"),
        (lambda: TopKLogitsWarper(0), "top_k must be an integer of at least 1, got 0"),
        (lambda: TopKLogitsWarper(2.0), "top_k must"),
        (lambda: TopPLogitsWarper(1.1), "top_p must be at least 0 and at most 1, got 1.1"),
        (lambda: TopPLogitsWarper(-0.1), "top_p must"),
        (lambda: TopPLogitsWarper("half"), "top_p must"),
        (lambda: TopPLogitsWarper(0.5, min_tokens_to_keep=0), "min_tokens_to_keep must be an integer of at least 1"),
        (lambda: TopHLogitsWarper(0), "top_h must be above 0 and at most 1, got 0"),
        (lambda: MinPLogitsWarper(2), "min_p must"),
        (lambda: MinPLogitsWarper(float("nan")), "min_p must"),
        (lambda: TypicalLogitsWarper(1.0), "typical_p must be above 0 and below 1, got 1.0"),
        (lambda: EpsilonLogitsWarper(0.0), "epsilon_cutoff must"),
        (lambda: EtaLogitsWarper(1), "eta_cutoff must"),
    ],
)
def test_bad_arguments_are_named(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()


MAKERS = st.one_of(
    st.builds(TopKLogitsWarper, st.integers(1, 9), min_tokens_to_keep=st.integers(1, 3)),
    st.builds(TopPLogitsWarper, st.floats(0, 1), min_tokens_to_keep=st.integers(1, 3)),
    st.builds(MinPLogitsWarper, st.floats(0, 1), min_tokens_to_keep=st.integers(1, 3)),
    st.builds(TypicalLogitsWarper, st.floats(0.01, 0.99), min_tokens_to_keep=st.integers(1, 3)),
    st.builds(EpsilonLogitsWarper, st.floats(0.01, 0.99), min_tokens_to_keep=st.integers(1, 3)),
    st.builds(EtaLogitsWarper, st.floats(0.01, 0.99), min_tokens_to_keep=st.integers(1, 3)),
    st.builds(TopHLogitsWarper, st.floats(0.01, 1)),
)


@settings(deadline=None, max_examples=60)
@given(warper=MAKERS, values=st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=7))
def test_something_is_always_left_and_nothing_is_changed(warper: LogitsProcessor, values: list[float]) -> None:
    scores = torch.tensor([values])
    found = kept(warper, scores)
    assert len(found) >= getattr(warper, "min_tokens_to_keep", 1)
    if not isinstance(warper, TypicalLogitsWarper):  # which may leave the likeliest out
        assert scores[0, found].max() == scores.max()
    others = torch.cat([scores, scores.flip(0) * 0.5])
    torch.testing.assert_close(warper(IDS, others)[:1], warper(IDS, scores), rtol=0, atol=0)  # rows do not meet
