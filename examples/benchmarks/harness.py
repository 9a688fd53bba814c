"""Run two libraries on one task in alternating processes of one run, and compare medians.

A task is a script that does its work when called with ``--worker LIBRARY`` and prints one JSON object on its last line.
Every round starts a fresh process per library, in turn, so that a slow minute of the machine meets both.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

OURS, PEER = "sparse_encoder", "sentence_transformers"


def peak_bytes() -> int:
    """Return the largest resident size this process has had.

    Linux counts what the process that started this one had into ``ru_maxrss``; its own peak is in ``VmHWM``.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_worker(script: str, library: str, arguments: Sequence[str]) -> dict[str, float]:
    """Run one task with one library in a process of its own and return what it measured."""
    command = [sys.executable, script, "--worker", library, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    measured: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def alternate(
    script: str, arguments: Sequence[str], *, rounds: int, libraries: Sequence[str] = (OURS, PEER)
) -> dict[str, dict[str, float]]:
    """Run every library once per round, in turn, and return the medians of what each measured."""
    measured: dict[str, list[dict[str, float]]] = {library: [] for library in libraries}
    for _ in range(rounds):
        for library in libraries:
            measured[library].append(run_worker(script, library, arguments))
    return {
        library: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for library, rows in measured.items()
    }


def machine() -> dict[str, Any]:
    """Say where and when a figure was measured."""
    import torch

    return {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def show(title: str, rows: dict[str, dict[str, float]], targets: dict[str, tuple[str, float]]) -> dict[str, Any]:
    """Print the medians and the ratios, and say which target is met.

    Args:
        title: What was measured.
        rows: The medians by library.
        targets: For each measure, what a ratio means (``"faster"``: peer / ours, ``"smaller"``: ours / peer) and the
            bound that it must reach.
    """
    print(f"\n{title}")
    report: dict[str, Any] = {"title": title, "medians": rows, "ratios": {}}
    for key, (kind, bound) in targets.items():
        ours, peer = rows[OURS][key], rows[PEER][key]
        ratio = peer / ours if kind == "faster" else ours / peer
        report["ratios"][key] = judged(kind, ratio, bound)
        word = "met" if report["ratios"][key]["met"] else "MISSED"
        print(f"  {key:<16} ours {ours:10.4g}   peer {peer:10.4g}   {kind} {ratio:.2f}  (target {bound:g}: {word})")
    for key in sorted(rows[OURS].keys() - targets.keys()):
        print(f"  {key:<16} ours {rows[OURS][key]:10.4g}   peer {rows[PEER][key]:10.4g}")
    return report


def judged(kind: str, ratio: float, bound: float) -> dict[str, Any]:
    """Hold a ratio against its target: ``"faster"`` must reach the bound, ``"smaller"`` must not pass it."""
    met = ratio >= bound if kind == "faster" else ratio <= bound
    return {"kind": kind, "ratio": ratio, "target": bound, "met": met}


def main(
    description: str,
    worker: Callable[[str, list[str]], dict[str, float]],
    run: Callable[[int], list[Any]],
    *,
    libraries: Sequence[str] = (OURS, PEER),
) -> None:
    """Be the worker or the run, as the command line says; ``--json FILE`` keeps the report.

    Leaves with 1 if a target was missed.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--worker", choices=libraries, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5, help="processes per library")
    parser.add_argument("--json", type=Path, help="write the report here")
    options, rest = parser.parse_known_args()
    if options.worker:
        print(json.dumps(worker(options.worker, rest)))
        return
    report: dict[str, Any] = {"machine": machine(), "results": run(options.rounds)}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    ratios = [ratio for result in report["results"] for ratio in result["ratios"].values()]
    sys.exit(0 if all(ratio["met"] for ratio in ratios) else 1)
