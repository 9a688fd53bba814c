from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sparse_encoder

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmarks" / "search.py"


@pytest.mark.slow
def test_the_benchmark_runs_and_both_sides_find_the_same(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--documents", "1500", "--rounds", "1", "--json", str(tmp_path / "report")]
    environment = {**os.environ, "PYTHONPATH": str(Path(sparse_encoder.__file__).parents[1])}  # also when not installed
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "1500 documents" in done.stdout
    report = json.loads((tmp_path / "report").read_text())
    ours, theirs = report["medians"]["sparse_encoder"], report["medians"]["scipy"]
    assert ours["total"] == pytest.approx(theirs["total"], rel=1e-6)  # the sum of all scores found
    assert ours["single_ms"] > 0
