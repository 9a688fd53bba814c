"""Start-up: a cold ``from … import SparseEncoder`` of ours, of the peer, and of the bare libraries under ours.

The class is looked into, too: ours imports torch when it is used for the first time, not before.

Run: ``python examples/benchmarks/cold_import.py``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

import harness

STATEMENTS = {
    harness.OURS: "from sparse_encoder import SparseEncoder; SparseEncoder.encode",
    harness.PEER: "from sentence_transformers import SparseEncoder; SparseEncoder.encode",
    "floor": "import torch, tokenizers, safetensors, scipy.sparse",
}
NO_PEER = "; import sys; assert 'transformers' not in sys.modules"


def seconds(statement: str) -> float:
    """Time one fresh interpreter that runs a statement."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)
    return time.perf_counter() - started


def run(rounds: int) -> list[Any]:
    """Run the three statements in turn, with the empty interpreter taken off each."""
    empty = statistics.median(seconds("pass") for _ in range(5))
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(rounds + 1):
        for name, statement in STATEMENTS.items():
            times[name].append(seconds(statement + NO_PEER * (name == harness.OURS)) - empty)
    medians = {name: {"seconds": statistics.median(row[1:])} for name, row in times.items()}
    report = harness.show("cold import", medians, {"seconds": ("faster", 3.0)})
    over_floor = medians[harness.OURS]["seconds"] / medians["floor"]["seconds"]
    report["ratios"]["over the bare libraries"] = judgement = harness.judged("smaller", over_floor, 1.3)
    print(f"  over the bare libraries {over_floor:.2f}  (target 1.3: {'met' if judgement['met'] else 'MISSED'})")
    return [report]


def worker(library: str, arguments: list[str]) -> dict[str, float]:
    """Time one import in a process of its own."""
    return {"seconds": seconds(STATEMENTS[library])}


if __name__ == "__main__":
    harness.main(__doc__ or "", worker, run)
