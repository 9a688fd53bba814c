"""Paths that come out of files: kept inside their folder, opened only as regular files.

Knows nothing of what the files hold.
"""

from __future__ import annotations

import os
import re
import stat
from io import BufferedReader
from pathlib import Path, PurePosixPath, PureWindowsPath

from sparse_encoder.checkpoint.errors import ConfigError, LoadError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHARED_BLOB = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}")


def resolve_inside(root: Path, name: str, *, error: type[LoadError] = ConfigError) -> Path:
    """Join a path that a file names to the folder it must stay in.

    Symbolic links may lead elsewhere in the folder, and out of a snapshot of a hub cache into the blobs of the same
    repository, which is how the cache stores its files. The path need not exist.

    Args:
        root: The folder.
        name: A relative path with forward slashes, as the file has it.
        error: What to raise.

    Returns:
        ``root / name``, links not resolved.

    Raises:
        LoadError: As ``error``, if ``name`` is empty, absolute, has a drive, a backslash, ``..`` or characters that no
            file name has, or if a link leads out of the folder.
    """
    parts = PurePosixPath(name).parts
    windows = PureWindowsPath(name)
    if not parts or ".." in parts or name.startswith("/") or windows.drive or windows.root or "\\" in name:
        raise error(f"a path in a model's files must be relative and stay in its folder, got {name!r}", path=root)
    if not name.isprintable() or len(name) > 1000:  # also NUL, newlines and lone surrogates
        raise error(f"a path in a model's files must be printable and short, got {name[:100]!r}", path=root)
    path = root.joinpath(*parts)
    real, real_root = Path(os.path.realpath(path)), Path(os.path.realpath(root))  # a loop of links is left as it is
    if not real.is_relative_to(real_root) and not _is_blob_of(real, real_root):
        raise error(f"{name!r} is a link that leads out of the folder", path=root)
    return path


def _is_blob_of(real: Path, real_root: Path) -> bool:
    """Return whether a file lies where the hub cache keeps the contents of the snapshot that ``real_root`` is in."""
    for folder in (real_root, *real_root.parents):
        snapshots = folder.parent
        repository = snapshots.parent
        if snapshots.name == "snapshots" and _COMMIT.fullmatch(folder.name) and "--" in repository.name:
            if real.parent == repository / "blobs":
                return True
            shared = repository.parent / "blobs"  # huggingface_hub 2.4: one store for all repositories of a cache
            return real.is_relative_to(shared) and bool(_SHARED_BLOB.fullmatch(real.relative_to(shared).as_posix()))
    return False


def open_regular(path: Path, *, error: type[LoadError] = LoadError) -> BufferedReader:
    """Open a file for reading without waiting on a pipe or touching a device.

    Args:
        path: The file; links are followed.
        error: What to raise for something that is not a regular file.

    Raises:
        FileNotFoundError: If nothing is there.
        LoadError: As ``error``, if it is a folder, a pipe, a socket or a device.
    """
    nonblocking = getattr(os, "O_NONBLOCK", 0)  # opening a pipe would wait for its other end
    try:
        descriptor = os.open(path, os.O_RDONLY | nonblocking | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        if path.is_symlink():
            raise error("is a link to nothing", path=path) from None
        raise
    except OSError as reason:  # a socket, a loop of links, no permission
        raise error(f"cannot be opened: {reason.strerror}", path=path) from reason
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise error("must be a regular file; it is a folder, a pipe or a device", path=path)
    return os.fdopen(descriptor, "rb")


def read_limited(path: Path, *, max_bytes: int, error: type[LoadError] = LoadError) -> bytes:
    """Read a regular file of bounded size.

    Args:
        path: The file.
        max_bytes: Largest size that is read.
        error: What to raise.

    Raises:
        FileNotFoundError: If nothing is there.
        LoadError: As ``error``, if it is no regular file or larger than ``max_bytes``.
    """
    with open_regular(path, error=error) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise error(f"must not be larger than {max_bytes} bytes", path=path)
    return data
