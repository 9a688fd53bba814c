"""Change the files of models at random and open them, for minutes or many cases.

Every change must be refused by a typed error, or read as what the files say. What fails is shown as hypothesis shrinks
it, and the exit status is 1:

    PYTHONPATH=.:tests python tests/soak/fuzz_loading.py --minutes 60
    PYTHONPATH=.:tests python tests/soak/fuzz_loading.py --cases 100000 --only Headers --seed 7
"""

from __future__ import annotations

import argparse
import logging
import random
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import fuzz_helpers
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from tqdm import tqdm

ROUND = 200
"""Cases of one kind before the next has its turn."""
PHASES = (Phase.generate, Phase.shrink)


def fuzz(target: fuzz_helpers.Target, number: int, cases: int) -> None:
    """Try some cases of one kind."""

    @seed(number)
    @settings(max_examples=cases, deadline=None, database=None, phases=PHASES, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data: DataObject) -> None:
        target.attempt(data)

    run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until the time or the cases are used up; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, help="how many files to change")
    parser.add_argument("--minutes", type=float, help="how long to go on")
    parser.add_argument("--seed", type=int, help="of the first round; a random one if it is not given")
    parser.add_argument("--only", choices=[kind.__name__ for kind in fuzz_helpers.TARGETS], help="one kind of file")
    options = parser.parse_args(arguments)
    if (options.cases is None) == (options.minutes is None):
        parser.error("give --cases or --minutes")
    logging.disable(logging.CRITICAL)
    number = random.SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    tqdm.write(f"seed {number}")
    kinds = [kind for kind in fuzz_helpers.TARGETS if options.only in (None, kind.__name__)]
    deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    with TemporaryDirectory() as root, tqdm(total=options.cases, unit=" cases", mininterval=1) as bar:
        targets = [kind(Path(root) / kind.__name__) for kind in kinds]
        while (deadline is None or time.monotonic() < deadline) and (options.cases is None or bar.n < options.cases):
            for target in targets:
                cases = ROUND if options.cases is None else min(ROUND, options.cases - bar.n)
                if cases > 0:
                    fuzz(target, number, cases)
                    bar.update(cases)
            number += 1
    for target in targets:
        tqdm.write(
            f"{type(target).__name__}: {target.opened + target.refused} tried, {target.refused} refused,"
            f" {target.opened} read; slowest {target.slowest:.2f} s"
        )
    tqdm.write(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
