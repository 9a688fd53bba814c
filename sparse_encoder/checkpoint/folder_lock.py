"""Processes that save to one folder, or read from it, kept apart by the system's lock on the folder itself.

Nothing is written for it, and a lock ends with its process. Where the file system knows no locks on folders (some
network ones, and Windows), savers are not kept apart.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from sparse_encoder.checkpoint.errors import CheckpointError, LoadError
from sparse_encoder.checkpoint.weight_names import ADAPTER_FILES, set_of

if sys.platform != "win32":
    import fcntl

Result = TypeVar("Result")

_PATIENCE_SECONDS = 60.0
"""A lock is held for a few renames."""
_POLL_SECONDS = 0.005
_ATTEMPTS = 5
"""Readings beside savers, which are not held up by them; then one that holds them up."""
_WATCHED = ("config.json", *ADAPTER_FILES)
_BUSY = (errno.EAGAIN, errno.EACCES)
_NOT_SUPPORTED = (errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


@contextmanager
def folder_lock(folder: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold a folder against other processes and threads that ask for it by this function.

    Args:
        folder: An existing folder; if it is replaced meanwhile, the new one is held.
        exclusive: Alone, to change it; otherwise together with others who look at it.

    Raises:
        FileNotFoundError: If there is no folder.
        TimeoutError: If others hold it for a minute.
    """
    if sys.platform == "win32":
        yield
        return
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            locked = _lock(descriptor, exclusive=exclusive, folder=folder, deadline=deadline)
            if not os.path.samestat(os.fstat(descriptor), os.stat(folder)):
                continue
            try:
                yield
            finally:
                if locked:  # also for the copies of the descriptor that forked processes have
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
            return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, *, exclusive: bool, folder: Path, deadline: float) -> bool:
    """Wait for a lock; returns False where the file system has none."""
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError as reason:
            if reason.errno in _NOT_SUPPORTED:
                return False
            if reason.errno not in _BUSY:
                raise
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{folder} has been held by another process for {_PATIENCE_SECONDS:.0f} seconds; stop the one that"
                    " saves there"
                ) from None
            time.sleep(_POLL_SECONDS)
        else:
            return True


def read_settled(folder: Path, read: Callable[[], Result]) -> Result:
    """Read a model's folder as one save left it, though others may save to it meanwhile.

    If configuration, weights or an adapter have changed when all is read, or while an error came up, it is read again;
    where others save all the time, they wait at last until it is read.

    Args:
        folder: The folder; it may be missing, which ``read`` will find.
        read: Reads. It may be called several times, so what it does besides, as a warning, may be done several times.

    Returns:
        What ``read`` returned.

    Raises:
        CheckpointError: If the folder never stays the same for as long as reading takes, which only a file system
            without locks lets happen.
    """
    for attempt in range(2 * _ATTEMPTS):
        with nullcontext() if attempt < _ATTEMPTS else folder_lock(folder, exclusive=False):
            before = _model_files(folder)
            try:
                result = read()
            except (LoadError, OSError):
                if _model_files(folder) == before:
                    raise
                continue
            if _model_files(folder) == before:
                return result
    raise CheckpointError(
        f"changed every time it was read, {2 * _ATTEMPTS} times", path=folder, hint="Stop the processes that save there"
    )


def _model_files(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return what tells the files of one save from those of another."""
    try:
        with folder_lock(folder, exclusive=False):
            entries = [entry for entry in os.scandir(folder) if entry.name in _WATCHED or set_of(entry.name)]
            states = {entry.name: entry.stat(follow_symlinks=False) for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {name: (state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states.items()}
