"""Whether a process that left something behind still runs; knows nothing of what it left."""

from __future__ import annotations

import os
from pathlib import Path

_SLACK_SECONDS = 5.0  # a file system's clock may be another one


def is_alive(process: int, since: float) -> bool:
    """Return whether the process of this machine that did something at a time still runs; True if nobody can tell.

    Numbers are given anew, in containers to the same program each time: a process that started later is another one.

    Args:
        process: Its number.
        since: When it did it, in seconds since 1970.
    """
    if process <= 0:
        return False
    if os.name == "nt":  # signal 0 is not a question there
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    started = _started(process)
    return started is None or started <= since + _SLACK_SECONDS


def _started(process: int) -> float | None:
    """Return when a process started, in seconds since 1970; None where the system does not say."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        return int(booted.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, StopIteration, IndexError, ValueError):
        return None
