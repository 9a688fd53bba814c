"""One run per folder: a file that is locked while the run lives; knows nothing of what else is in the folder.

The lock is the operating system's, so it ends with its process, however that ends. Where the file system knows no
locks (some network ones), the file itself is the lock: it is created by one process only, and is taken over if that
process, of this machine, is dead. What another machine left there has to be removed by hand.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.checkpoint.processes import is_alive

logger = logging.getLogger(__name__)

LOCK = ".run.lock"
_PATIENCE_SECONDS = 20.0
"""Forked workers share a lock; those of a killed run notice its end within seconds."""
_POLL_SECONDS = 0.1
_BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_NOT_SUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
_WINDOWS_PLACE = 1 << 30  # far behind the text, which others may then read
_MAX_BYTES = 4096


class Holder(NamedTuple):
    """Who holds a folder."""

    pid: int
    host: str
    since: float
    """Seconds since 1970."""

    def is_dead(self) -> bool:
        """Return whether this is known to be a process of this machine that has ended."""
        return self.host == socket.gethostname() and not is_alive(self.pid, self.since)

    def __str__(self) -> str:
        """Name process, machine and time."""
        since = datetime.fromtimestamp(self.since, timezone.utc).isoformat(timespec="seconds")
        return f"process {self.pid} on {self.host} since {since}"


@contextmanager
def hold_folder(output_dir: Path) -> Iterator[None]:
    """Keep every other run out of a folder; only the first process of a run may call this.

    Args:
        output_dir: The folder; made if need be.

    Raises:
        CheckpointError: If another run holds it, whose process is named, or if nothing can be written there.
    """
    path = output_dir / LOCK
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        descriptor, by_system = _acquire(path)
    except OSError as reason:
        raise CheckpointError(
            f"nothing can be written here: {reason.strerror or reason}",
            path=output_dir,
            hint="Give output_dir a folder that this process may write to",
        ) from reason
    try:
        yield
    finally:
        _release(path, descriptor, by_system=by_system)


def _acquire(path: Path) -> tuple[int, bool]:
    """Take the lock; returns the open file, and whether the system locks it."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        created, descriptor = _open(path)
        try:
            locked = _lock(descriptor)
            if (locked or (locked is None and created)) and _is_at(path, descriptor):
                _write_holder(descriptor)
                return descriptor, locked is True
            holder = _read_holder(descriptor)
            dead = holder is not None and holder.is_dead()
            if locked is None and dead and _is_at(path, descriptor):
                logger.warning("%s is taken over: its run has ended, %s", path, holder)
                path.unlink(missing_ok=True)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if locked or (locked is None and dead):  # the file has been removed in between
            continue
        if time.monotonic() > deadline or not (holder is None or dead):
            raise CheckpointError(
                f"another run uses this folder: {'process unknown' if holder is None else holder}",
                path=path.parent,
                hint=f"Wait for its end, or give another output_dir. If that run is dead for certain, remove {path}",
            )
        time.sleep(_POLL_SECONDS)


def _open(path: Path) -> tuple[bool, int]:
    """Open the file; returns whether it is new, and the descriptor."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    try:
        return True, os.open(path, flags | os.O_EXCL, 0o644)
    except FileExistsError:
        return False, os.open(path, flags, 0o644)


def _lock(descriptor: int) -> bool | None:
    """Lock a file without waiting; False if another has it, None if the file system cannot."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, _WINDOWS_PLACE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as reason:
        if reason.errno in _BUSY:
            return False
        if reason.errno in _NOT_SUPPORTED:
            return None
        raise
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Return whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _write_holder(descriptor: int) -> None:
    """Write who this is."""
    text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()})
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, text.encode())
    os.fsync(descriptor)


def _read_holder(descriptor: int) -> Holder | None:
    """Read who holds the lock; None if the file does not say, perhaps not yet."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        values = json.loads(os.read(descriptor, _MAX_BYTES))
        return Holder(int(values["pid"]), str(values["host"]), float(values["since"]))
    except (ValueError, KeyError, TypeError):
        return None


def _release(path: Path, descriptor: int, *, by_system: bool) -> None:
    """Remove the file while it is locked, so that nobody waits for a name that is gone, and let go."""
    with contextlib.suppress(OSError):  # a folder that was removed or has become read-only; Windows, while it is open
        if _is_at(path, descriptor):
            path.unlink()
    os.close(descriptor)
    if sys.platform == "win32" and by_system:
        with contextlib.suppress(OSError):
            path.unlink()
