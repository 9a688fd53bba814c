"""Kill runs at random moments, resume them, and hold the final weights to those of a run that nothing happens to.

    PYTHONPATH=.:tests python tests/soak/kill_training.py --kills 200

One process has everything imported and forks the runs. A run that has come to its end is compared, and begun anew,
until there were enough kills. Prints a JSON object; exits with 1 if anything went wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from checkpoints_helpers import Anything, small_run, weights_digest
from tqdm import tqdm

from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.training.checkpoints.folders import list_checkpoints
from sparse_encoder.training.checkpoints.manifest import check_manifest

OPTIONS = {"max_steps": 12}


class Soak:
    """Runs in a folder that are killed.

    Args:
        folder: For everything.
        seed: Of the moments.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.out, self.report = folder / "out", folder / "report"
        self.moments = random.Random(seed)
        whole = small_run(folder / "whole", **OPTIONS)
        whole.train()
        started = time.perf_counter()
        whole = small_run(folder / "again", **OPTIONS)
        whole.train()
        self.seconds = time.perf_counter() - started
        self.expected = weights_digest(whole.model)
        self.outcome: dict[str, Anything] = {
            "kills": 0,
            "runs": 0,
            "resumed_at": {},
            "damaged": [],
            "failed": 0,
            "other_weights": 0,
            "left_over": [],
        }

    def run(self, kills: int) -> dict[str, Anything]:
        """Kill until there were enough, and let the last run end."""
        while not self.outcome["failed"] and (self.outcome["kills"] < kills or self.out.exists()):
            self._go_on(killing=self.outcome["kills"] < kills)
        return self.outcome

    def _go_on(self, *, killing: bool) -> None:
        """Start or resume the run, and kill it or let it end."""
        child = os.fork()
        if child == 0:
            self._train()
        if killing:
            time.sleep(self.moments.random() * self.seconds)
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == -signal.SIGKILL:
            self.outcome["kills"] += 1
            self._look()
        elif status == 0:
            self._compare()
        else:
            self.outcome["failed"] += 1

    def _train(self) -> None:
        """Go on in this process, which ends here."""
        status = 1
        try:
            resume = bool(list_checkpoints(self.out)) or None
            run = small_run(self.out, seed=99 if resume else 3, **OPTIONS)
            run.train(resume_from_checkpoint=resume)
            self.report.write_text(weights_digest(run.model))
            status = 0
        finally:
            os._exit(status)

    def _look(self) -> None:
        """Check what a kill has left: every folder with a checkpoint's name is whole."""
        found = list_checkpoints(self.out)
        at = found[-1].name if found else "none"
        self.outcome["resumed_at"][at] = self.outcome["resumed_at"].get(at, 0) + 1
        for checkpoint in found:
            try:
                check_manifest(checkpoint)
            except CheckpointError as reason:
                self.outcome["damaged"].append(str(reason))

    def _compare(self) -> None:
        """Compare a run that has ended, and make room for the next."""
        self.outcome["runs"] += 1
        self.outcome["other_weights"] += self.report.read_text() != self.expected
        names = sorted(os.listdir(self.out))
        if names != ["checkpoint-11", "checkpoint-12"]:
            self.outcome["left_over"].append(names)
        shutil.rmtree(self.out)


def main() -> int:
    """Kill and compare; returns 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    tqdm.set_lock(threading.RLock())  # its own is shared with forks, and stays locked when one is killed that has it
    with tempfile.TemporaryDirectory() as folder:
        outcome = Soak(Path(folder), chosen.seed).run(chosen.kills)
    sys.stdout.write(json.dumps(outcome) + "\n")
    return int(any(outcome[name] for name in ("damaged", "failed", "other_weights", "left_over")))


if __name__ == "__main__":
    sys.exit(main())
