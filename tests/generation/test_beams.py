"""The books of beam search by hand: hope, and what ends a search."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparse_encoder.generation.beams import FAR_BELOW, BeamRules, Beams, Finished, goes_on, still_hope

WRITTEN, LONGEST = 2, 10
"""Tokens behind a prompt of 3, now and at most."""


def rules(early_stopping: bool | str = False, length_penalty: float = 1.0) -> BeamRules:
    return BeamRules(
        num_beams=2,
        prompt_length=3,
        max_length=3 + LONGEST,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
    )


def beams(*scores: tuple[float, float]) -> Beams:
    table = torch.tensor(scores)
    ids = torch.zeros(*table.shape, 3 + WRITTEN, dtype=torch.int64)
    return Beams(ids, table, torch.zeros(*table.shape, WRITTEN, dtype=torch.int32))


def finished(*scores: tuple[float, float], done: bool = True) -> Finished:
    kept = beams(*scores)
    return Finished(kept, torch.full_like(kept.scores, done, dtype=torch.bool))


def hopes(*values: bool) -> Tensor:
    return torch.tensor(values)[:, None]


def test_hope_that_was_lost_stays_lost() -> None:
    running, best = beams((-1.0, -9.0), (-1.0, -9.0)), finished((-2.0, -3.0), (-2.0, -3.0))
    assert still_hope(hopes(True, True), running, best, rules()).tolist() == [[True], [True]]
    assert still_hope(hopes(False, True), running, best, rules()).tolist() == [[False], [True]]


def test_the_best_running_beam_is_held_against_the_worst_finished_one() -> None:
    best = finished((-2.0, -3.0), (-2.0, -3.0), (-2.0, -3.0))
    running = beams((-5.9, -99.0), (-6.1, -6.2), (-99.0, -5.9))  # over 2 tokens; the first beam is the best
    assert still_hope(hopes(True, True, True), running, best, rules()).tolist() == [[True], [False], [False]]
    halved = still_hope(hopes(True, True, True), running, best, rules(length_penalty=0.0))
    assert halved.tolist() == [[False], [False], [False]]


def test_there_is_hope_while_places_are_empty() -> None:
    nothing = finished((FAR_BELOW, FAR_BELOW), done=False)
    assert still_hope(hopes(True), beams((-1e6, -1e7)), nothing, rules()).tolist() == [[True]]


@pytest.mark.parametrize(
    ("early_stopping", "length_penalty", "hope"),
    [
        (False, 1.0, False),  # -8 / 2 is below -3
        (True, 1.0, False),
        ("never", 1.0, True),  # -8 / 10 is above it
        ("never", 0.0, False),  # no length counts
        ("never", -1.0, False),  # -8 * 2: the present length is the better one
        ("never", 0.5, True),  # -8 / sqrt(10) is above -3, -8 / sqrt(2) below
        (False, 0.5, False),
    ],
)
def test_never_counts_the_longest_text(early_stopping: bool | str, length_penalty: float, hope: bool) -> None:
    got = still_hope(hopes(True), beams((-8.0, -9.0)), finished((-2.0, -3.0)), rules(early_stopping, length_penalty))
    assert got.tolist() == [[hope]]


def test_a_search_ends_without_hope_or_open_beams_and_early_with_enough() -> None:
    stopped, some_open = torch.ones(2, 4, dtype=torch.bool), torch.eye(4, dtype=torch.bool)[:2]
    full, empty = finished((-2.0, -3.0), (-2.0, -3.0)), finished((-2.0, -3.0), (-2.0, -3.0), done=False)
    assert goes_on(hopes(True, False), full, some_open, rules())
    assert not goes_on(hopes(False, False), full, some_open, rules())
    assert not goes_on(hopes(True, True), full, stopped, rules())
    assert not goes_on(hopes(True, True), full, some_open, rules(early_stopping=True))
    assert goes_on(hopes(True, True), empty, some_open, rules(early_stopping=True))
