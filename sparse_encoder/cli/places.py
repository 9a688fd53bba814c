"""Finds out before the work whether results can be written where a user wants them. Knows no results."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def check_folder(folder: Path, option: str) -> None:
    """Find out whether a folder can be made, or written to if it exists.

    Args:
        folder: The folder.
        option: Which names it, for errors.

    Raises:
        NotADirectoryError: If it cannot be made.
        PermissionError: If it cannot be written to.
    """
    above = next(each for each in (folder, *folder.absolute().parents) if each.exists() or each.is_symlink())
    if not above.is_dir():
        raise NotADirectoryError(f"{folder} cannot be made, {above} is no folder; choose another {option}")
    try:
        with tempfile.TemporaryDirectory(dir=above):
            pass
    except OSError as error:
        raise PermissionError(f"{folder} cannot be written to ({error}); choose another {option}") from error


def check_file(path: Path, option: str) -> None:
    """Find out whether a file can be written, or written over, in a folder that exists or can be made.

    Args:
        path: The file.
        option: Which names it, for errors.

    Raises:
        FileExistsError: If it is a folder.
        NotADirectoryError: If its folder cannot be made.
        PermissionError: If it, or its folder, cannot be written to.
    """
    if path.is_dir():
        raise FileExistsError(f"{path} is a folder; {option} needs the name of a file")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"{path} cannot be written over; choose another {option}")
    check_folder(path.parent, option)
