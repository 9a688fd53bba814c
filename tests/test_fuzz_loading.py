"""More than two thousand changed files: every one is refused by a typed error, or read as what it says."""

from __future__ import annotations

import resource
from pathlib import Path

import fuzz_helpers
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

CASES = {
    "Configs": 600,
    "Indices": 400,
    "Headers": 500,
    "Modules": 200,
    "Tokenizers": 300,
    "Adapters": 150,
    "Generation": 200,
}
MAX_KILOBYTES = 300_000


@pytest.mark.parametrize("kind", fuzz_helpers.TARGETS, ids=lambda kind: kind.__name__)
def test_changed_files(kind: type[fuzz_helpers.Target], tmp_path: Path) -> None:
    target = kind(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @seed(1)
    @settings(max_examples=CASES[kind.__name__], deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data: DataObject) -> None:
        target.attempt(data)

    run()
    assert target.opened and target.refused
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_KILOBYTES


def test_there_are_more_than_two_thousand() -> None:
    assert sum(CASES.values()) >= 2350
    assert {kind.__name__ for kind in fuzz_helpers.TARGETS} == set(CASES)
