"""What writers that were killed left behind: temporary files and folders whose process has ended."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from sparse_encoder.checkpoint.processes import is_alive

_TEMPORARY = re.compile(r"\.tmp-(\d+)-[0-9a-f]+")


def is_left_over(path: Path) -> bool:
    """Return whether a path is the temporary of a process that has ended."""
    temporary = _TEMPORARY.fullmatch(path.name)
    if temporary is None:
        return False
    try:
        return not is_alive(int(temporary[1]), path.stat().st_mtime)
    except FileNotFoundError:
        return False


def remove_left_over(folder: Path) -> None:
    """Remove from a folder what writers that have ended meant to move out of it; nothing if there is no folder."""
    for path in folder.glob(".tmp-*"):
        if is_left_over(path) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
