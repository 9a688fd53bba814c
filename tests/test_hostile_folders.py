"""Rows 1 to 35 of bad_inputs.py through every entry point: a typed error at once, and nothing outside is opened."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bad_inputs import BAD_INPUTS
from checkpoints_helpers import small_run
from hostile_adapters import ADAPTER_CASES
from hostile_cases import CASES as FILE_CASES
from hostile_decoders import DECODER_CASES, make_decoders
from hostile_helpers import GOOD, MODELS, Case, as_pickle, file, make_good, only_pickle, packed, spoil
from hostile_tokenizers import TOKENIZER_CASES

from sparse_encoder import SparseEncoder

CASES = [*FILE_CASES, *TOKENIZER_CASES, *ADAPTER_CASES, *DECODER_CASES]
ALL = [(case, entry) for case in CASES for entry in case.entries]
MAX_BYTES = 100_000_000


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Open all folders in one process."""
    root = Path(os.path.realpath(tmp_path_factory.mktemp("hostile")))
    make_good(root)
    make_decoders(root)
    run = small_run(root / "run", model=SparseEncoder(str(root / "sparse"), device="cpu"))
    run.train()
    (root / "run" / "checkpoint-3").rename(root / "checkpoint")
    for entry, place in GOOD.items():
        harms = [file("config.json", "["), *([as_pickle, only_pickle(packed(b"x"))] if entry in MODELS else [])]
        for number, harm in enumerate(harms):
            spoil(root, Case("", (), (), harm, ""), entry, 0).rename(root / f"warm {entry} {number}")
        shutil.copytree(root / place, root / f"warm {entry} good")
    folders = [spoil(root, case, entry, number) for number, (case, entry) in enumerate(ALL)]
    cases = [{"entry": entry, "folder": str(folder)} for (_, entry), folder in zip(ALL, folders, strict=True)]
    (root / "cases.json").write_text(json.dumps({"good": GOOD, "cases": cases}))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("hostile_process.py")), str(root)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads((root / "results.json").read_text())
    return {**found, "pwned": list(root.rglob("pwned")), "root": str(root)}


def test_every_row_has_a_case_or_a_test() -> None:
    rows = {row for case in CASES for row in case.rows}
    for path in Path(__file__).parent.rglob("test_*.py"):
        rows.update(map(int, re.findall(r"def test_row_(\d+)_", path.read_text(encoding="utf-8"))))
    assert rows == set(BAD_INPUTS)


def test_the_watch_sees_and_good_folders_open(outcome: dict[str, Any]) -> None:
    assert outcome["control"] == ["import", "open"]
    assert not outcome["pwned"]
    for entry, result in outcome["good"].items():
        assert result["error"] is None, (entry, result)
        assert result["numbers"] and not result["events"], entry


def fault(case: Case, result: dict[str, Any], good: dict[str, Any]) -> str | None:
    """Say what is wrong with how a folder was opened."""
    told = " ".join([result.get("message", ""), *result["warnings"]])
    checks = {
        f"error {result['error']}: {result.get('message')}": result["error"] == case.error,
        f"not typed: {result.get('message')}": case.error is None or result.get("typed", False),
        f"said: {told}": re.search(case.says, told, re.DOTALL) is not None,
        f"events {result['events']}": not result["events"],
        f"imported {result['imported']}": not result["imported"],
        f"opened {result['opened']}": case.closed not in result["opened"],
        f"took {result['cpu_seconds']} s": result["cpu_seconds"] < 1,
        f"took {result['bytes']} bytes": result["bytes"] < MAX_BYTES,
        "the good folder no longer opens with its numbers": result["healthy"],
        "other numbers": case.error is not None or result.get("numbers") == good["numbers"],
    }
    return "; ".join(what for what, fine in checks.items() if not fine) or None


def test_hostile_folders(outcome: dict[str, Any]) -> None:
    assert len(outcome["results"]) == len(ALL) > 300
    faults = [
        f"rows {case.rows} {case.name!r} by {entry}: {found}"
        for (case, entry), result in zip(ALL, outcome["results"], strict=True)
        if (found := fault(case, result, outcome["good"][entry]))
    ]
    assert not faults, f"{len(faults)}:\n" + "\n".join(faults)
