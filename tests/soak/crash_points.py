"""Kill a run at every file operation of a checkpoint, resume it, and compare.

    for mode in kill short power; do PYTHONPATH=.:tests python tests/soak/crash_points.py --mode $mode; done
    PYTHONPATH=.:tests python tests/soak/crash_points.py --mode power --scenario next --library

One process has everything imported and forks those that crash. ``--mode turns`` takes the modes in turns, for each kind
of operation from one to the next, on from scenario to scenario. Prints a JSON object with, for each scenario, the
operations, how they crashed and what went wrong at which.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from unittest import mock

from checkpoints_helpers import KILLED, Anything, Faults, in_child, small_run, weights_digest
from model_helpers import write_masked_language_model

from sparse_encoder import SparseEncoder, SparseEncoderTrainer

SCENARIOS = {  # checkpoints that are there, what is resumed from, updates between checkpoints
    "first": ((), None, 3),
    "next": ((1, 2), True, 1),
    "replace": ((1, 2, 3), "checkpoint-2", 1),
}
MEMORY = Path("/dev/shm")
MODES = ("kill", "short", "power")
TURNS = "turns"
SABOTAGE = "sparse_encoder.training.checkpoints.folders.sync_tree"


class Crashes:
    """A run in a folder, as far as it came before the checkpoint at which it is to crash."""

    def __init__(self, folder: Path, scenario: str, *, library: bool) -> None:
        self.folder = folder
        self.base = write_masked_language_model(folder / "base") if library else None
        self.present, self.resume, self.save_steps = SCENARIOS[scenario]
        self.whole, self.out, self.report = folder / "whole", folder / "out", folder / "report"
        run = self._make(self.whole, seed=3, save_total_limit=None)
        run.train()  # in this process: what torch does at the first call need not be done in every fork
        self.expected = weights_digest(run.model)

    def _make(self, folder: Path, *, seed: int, **options: Anything) -> SparseEncoderTrainer:
        """Make a trainer; the seed is that of weights that a resumed run does not keep."""
        model = None if self.base is None else SparseEncoder(str(self.base), device="cpu")
        return small_run(folder, model=model, **{"seed": seed, **options})

    def prepare(self) -> None:
        """Put the folder into the state before the crash."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        for step in self.present:
            shutil.copytree(self.whole / f"checkpoint-{step}", self.out / f"checkpoint-{step}")

    def count(self) -> list[str]:
        """Return all file operations, in their order."""
        self.prepare()
        assert in_child(lambda: self._train(Faults(self.out, 0, "count"), self.report)) == 0
        return self.report.read_text().splitlines()

    def _train(self, faults: Faults, report: Path | None = None) -> None:
        resume = str(self.out / self.resume) if isinstance(self.resume, str) else self.resume
        run = self._make(self.out, seed=99 if resume else 3, save_steps=self.save_steps)
        with faults.armed():
            run.train(resume_from_checkpoint=resume)
        if report is not None:
            report.write_text("\n".join(faults.calls))

    def crash(self, at: int, mode: str) -> str | None:
        """Crash at an operation and go on; returns what went wrong."""
        self.prepare()
        self.report.unlink(missing_ok=True)
        status = in_child(lambda: self._train(Faults(self.out, at, mode)))
        if status != KILLED:
            return f"ended with {status} instead of the crash"
        try:
            self._recover()  # in this process, which no crash has left anything in: another fork would cost more
        except Exception as reason:  # noqa: BLE001 - whatever it is, it is told
            return f"could not be resumed: {reason!r}; there are {sorted(os.listdir(self.out))}"
        digest, *names = self.report.read_text().splitlines()
        if digest != self.expected:
            return "ended with other weights"
        wanted = ["checkpoint-3"] if self.save_steps == 3 else ["checkpoint-2", "checkpoint-3"]
        return None if names == wanted else f"left {names}"

    def _recover(self) -> None:
        """Go on, from a checkpoint if one was committed before the crash or by the crashed process."""
        committed = bool(self.present) or any(path.name == "checkpoint-3" for path in self.out.iterdir())
        run = self._make(self.out, seed=99 if committed else 3, save_steps=self.save_steps)
        run.train(resume_from_checkpoint=True if committed else None)
        self.report.write_text("\n".join([weights_digest(run.model), *sorted(os.listdir(self.out))]))


def in_turns(kinds: list[str], seen: Counter[str]) -> list[str]:
    """Choose the mode of each operation, so that each kind meets all of them.

    Args:
        kinds: Of the operations, in their order.
        seen: How many of each kind there were before; these are added.
    """
    modes = []
    for kind in kinds:
        modes.append(MODES[seen[kind] % len(MODES)])
        seen[kind] += 1
    return modes


def crash_everywhere(scenario: str, chosen: argparse.Namespace, seen: Counter[str]) -> dict[str, Anything]:
    """Crash a scenario at all operations; returns them, how each died, and what went wrong."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        crashes = Crashes(Path(folder), scenario, library=chosen.library)
        calls = crashes.count()
        points = range(1, len(calls) + 1, chosen.every)
        kinds = [calls[at - 1].split()[0] for at in points]
        modes = in_turns(kinds, seen) if chosen.mode == TURNS else [chosen.mode] * len(kinds)
        faults = {at: crashes.crash(at, mode) for at, mode in zip(points, modes, strict=True)}
    wrong = {f"{at} {calls[at - 1]}": fault for at, fault in faults.items() if fault is not None}
    met = [f"{kind} {mode}" for kind, mode in zip(kinds, modes, strict=True)]
    return {"calls": calls, "crashes": len(faults), "met": met, "wrong": wrong}


def main() -> int:
    """Crash everywhere; returns 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=(*MODES, TURNS), default="kill")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), help="one of them; without it, all")
    parser.add_argument("--every", type=int, default=1, help="crash at every n-th operation only")
    parser.add_argument("--library", action="store_true", help="train an encoder of the library, not a stand-in")
    parser.add_argument("--sabotage", action="store_true", help="do not flush the files, to see that this is noticed")
    chosen = parser.parse_args()
    if chosen.sabotage:
        mock.patch(SABOTAGE, lambda folder: None).start()
    scenarios = [chosen.scenario] if chosen.scenario else list(SCENARIOS)
    seen: Counter[str] = Counter()
    outcome = {scenario: crash_everywhere(scenario, chosen, seen) for scenario in scenarios}
    sys.stdout.write(json.dumps(outcome) + "\n")
    return int(any(each["wrong"] for each in outcome.values()))


if __name__ == "__main__":
    sys.exit(main())
