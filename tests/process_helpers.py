"""Code in a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

SECONDS = 300


def run_python(code: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Run code that can import what this process can.

    Args:
        code: What to run; it must end well, within :data:`SECONDS`.
        arguments: Of ``sys.argv``, from 1 on.
        env: Variables of the environment besides those of this process.

    Returns:
        What it printed, without white space around it.
    """
    paths = os.pathsep.join(filter(None, sys.path))
    variables = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **(env or {})}
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
