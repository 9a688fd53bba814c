"""A run that is killed at any file operation of a checkpoint goes on from a whole one to the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks up open files in /proc"),
]


def soak(script: str, *arguments: str) -> dict[str, Any]:
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TESTS / "soak" / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr[-3000:]
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])  # behind the log rows of the runs
    return outcome


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Any]:
    """Crash at every operation of every scenario, each kind in the three ways by turns; the soak takes all at all."""
    return soak("crash_points.py", "--mode", "turns")


@pytest.mark.parametrize("scenario", ["first", "next", "replace"])
def test_every_crash_point_leaves_a_run_that_ends_the_same(scenario: str, outcomes: dict[str, Any]) -> None:
    outcome = outcomes[scenario]
    assert outcome["wrong"] == {}
    assert outcome["crashes"] == len(outcome["calls"]) >= 50
    kinds = {call.split()[0] for call in outcome["calls"]}
    assert {"open", "write", "file.write", "save_file", "fsync", "mkdir", "rename", "replace", "unlink"} <= kinds


def test_every_kind_of_operation_crashes_in_all_three_ways(outcomes: dict[str, Any]) -> None:
    calls = Counter(call.split()[0] for outcome in outcomes.values() for call in outcome["calls"])
    met = {each for outcome in outcomes.values() for each in outcome["met"]}
    often = {kind for kind, count in calls.items() if count >= 3}
    assert {"open", "write", "file.write", "save_file", "fsync", "mkdir", "rename", "replace", "unlink"} <= often
    assert {f"{kind} {mode}" for kind in often for mode in ("kill", "short", "power")} <= met


def test_crash_points_of_an_encoder_of_the_library_leave_a_run_that_ends_the_same() -> None:
    outcome = soak("crash_points.py", "--scenario", "next", "--mode", "power", "--library", "--every", "4")["next"]
    assert outcome["wrong"] == {}
    assert len(outcome["calls"]) > 100
    assert outcome["crashes"] >= 25


def test_a_missing_flush_would_be_noticed() -> None:
    outcome = soak("crash_points.py", "--scenario", "next", "--mode", "power", "--sabotage", "--every", "3")["next"]
    assert outcome["wrong"]


def test_random_kills_select_no_damaged_checkpoint_and_end_the_same() -> None:
    outcome = soak("kill_training.py", "--kills", "10", "--seed", "7")
    assert outcome["kills"] == 10
    assert outcome["runs"] >= 1
    assert outcome["damaged"] == []
    assert outcome["other_weights"] == 0
    assert outcome["left_over"] == []
