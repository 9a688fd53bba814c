"""File operations that fail, stop the process, or are lost with the power; and a small run to do that to."""

from __future__ import annotations

import builtins
import hashlib
import io
import os
import pathlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import training_helpers
from training_helpers import pairs, tiny_encoder, trainer

from sparse_encoder.checkpoint import writing
from sparse_encoder.training import SparseEncoderTrainer

Anything = Any  # whatever the patched function takes
KILLED = 137
PATHS = ("chmod", "mkdir", "open", "remove", "rename", "replace", "rmdir", "truncate", "unlink")
DESCRIPTORS = ("fsync", "ftruncate", "write")
MAKING = ("file.write", "fsync", "ftruncate", "mkdir", "open", "rename", "replace", "save_file", "write")
DYING = ("kill", "short", "power")
"""Modes that end the process. Opening a file only to read it counts in the mode ``error`` alone."""


class Faults:
    """Count the file operations in a folder, and let something happen at one of them.

    Args:
        root: The folder.
        at: The operation, counted from 1; 0 only counts.
        mode: ``kill`` ends the process before the operation, ``short`` in the middle of it; ``power`` loses what was
            not flushed to the disk too; ``error`` lets the operation fail, ``full`` all later ones too that need room.
        code: The number of the error.
    """

    def __init__(self, root: Path, at: int, mode: str, code: int = 0) -> None:
        self.root, self.at, self.mode, self.code = root.resolve(), at, mode, code
        self.calls: list[str] = []
        self.torn: set[Path] = set()  # written and not flushed
        self.renamed: list[tuple[Path, Path]] = []  # and the folder not flushed
        self.functions = {name: getattr(os, name) for name in (*PATHS, *DESCRIPTORS)}
        self.open, self.save_file = builtins.open, writing.save_file

    @contextmanager
    def armed(self) -> Iterator[Faults]:
        """Put the counting functions into the places of the real ones."""
        counted = {name: self._wrap(name) for name in self.functions}
        with ExitStack() as patched:
            patched.enter_context(mock.patch.multiple(os, **counted))
            accessor = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10 keeps functions of its own
            if accessor is not None:
                own = {name: staticmethod(each) for name, each in counted.items() if hasattr(accessor, name)}
                patched.enter_context(mock.patch.multiple(accessor, **{**own, "open": staticmethod(self._open)}))
            for module in (builtins, io):
                patched.enter_context(mock.patch.object(module, "open", self._open))
            for owner in (writing, training_helpers):
                patched.enter_context(mock.patch.object(owner, "save_file", self._save_file))
            yield self

    def _wrap(self, name: str) -> Callable[..., Anything]:
        function = self.functions[name]

        def counted(*given: Anything, **named: Anything) -> Anything:
            path = self._path(given[0], named.get("dir_fd", named.get("src_dir_fd")))
            if not self._inside(path) or (name == "open" and self.mode != "error" and not _makes(*given)):
                return function(*given, **named)
            half = (lambda: function(given[0], given[1][: len(given[1]) // 2])) if name == "write" else None
            self._count(name, path, half)
            result = function(*given, **named)
            self._note(name, path, given)
            return result

        return counted

    def _open(  # house: peer signature
        self, file: Anything, mode: str = "r", *given: Anything, **named: Anything
    ) -> Anything:
        """Open a file; what is written into it is counted."""
        path = self._path(file, None)
        if not self._inside(path) or not set(mode) & set("wax+"):
            return self.open(file, mode, *given, **named)
        if not isinstance(file, int):
            self._count("open", path)
        self.torn.add(path)
        return _File(self, self.open(file, mode, *given, **named), path)

    def _save_file(self, tensors: Anything, path: str | Path, *given: Anything) -> None:
        """Write tensors; in the middle there is half a file."""
        place = Path(path).resolve()
        self._count("save_file", place, lambda: self._cut(place, tensors, given))
        self.save_file(tensors, path, *given)
        self.torn.add(place)

    def _cut(self, path: Path, tensors: Anything, given: Anything) -> None:
        self.save_file(tensors, path, *given)
        os.truncate(path, path.stat().st_size // 2)

    def _count(self, name: str, path: Path, half: Callable[[], Anything] | None = None) -> None:
        """Count an operation, and let happen what is to happen."""
        self.calls.append(f"{name} {path.relative_to(self.root)}")
        number = len(self.calls)
        if self.mode == "error" and number == self.at:
            raise OSError(self.code, os.strerror(self.code), str(path))
        if self.mode == "full" and 0 < self.at <= number and name in MAKING:
            raise OSError(self.code, os.strerror(self.code), str(path))
        if self.mode in DYING and number == self.at:
            mode, self.mode = self.mode, "off"
            if half is not None and mode != "kill":
                half()
            if mode == "power":
                self._lose()
            os._exit(KILLED)

    def _lose(self) -> None:
        """Undo renames whose folder was not flushed, the last first, and cut what was not flushed itself."""
        for source, target in reversed(self.renamed):
            if target.exists() and not source.exists():
                self.functions["rename"](target, source)
                self.torn = {_moved(path, target, source) for path in self.torn}
        for path in self.torn:
            if path.is_file():
                self.functions["truncate"](path, path.stat().st_size // 2)

    def _note(self, name: str, path: Path, given: Anything) -> None:
        """Remember what a machine without power would lose."""
        if name == "fsync":
            self.torn.discard(path)
            self.renamed = [(source, target) for source, target in self.renamed if target.parent != path]
        elif name in ("rename", "replace"):
            target = self._path(given[1], None)
            self.torn = {_moved(each, path, target) for each in self.torn}
            self.renamed.append((path, target))
        elif name in ("write", "truncate", "ftruncate"):
            self.torn.add(path)

    def _path(self, file: Anything, folder: int | None) -> Path:
        """Return what a function was called with as a path."""
        if isinstance(file, int):
            return Path(os.readlink(f"/proc/self/fd/{file}"))
        if folder is not None:
            return Path(os.readlink(f"/proc/self/fd/{folder}")) / os.fsdecode(file)
        return Path(os.path.abspath(os.fsdecode(file)))

    def _inside(self, path: Path) -> bool:
        return path == self.root or self.root in path.parents


class _File:
    """A file that is written into, with every write counted."""

    def __init__(self, faults: Faults, file: Anything, path: Path) -> None:
        self.faults, self.file, self.path = faults, file, path

    def write(self, data: Anything) -> Anything:
        self.faults._count(
            "file.write", self.path, lambda: (self.file.write(data[: len(data) // 2]), self.file.flush())
        )
        return self.file.write(data)

    def __getattr__(self, name: str) -> Anything:
        return getattr(self.file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *reason: object) -> None:
        self.file.close()


def _makes(path: Anything, flags: int, *_: object) -> bool:
    """Return whether opening a file may change anything."""
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def _moved(path: Path, source: Path, target: Path) -> Path:
    return target / path.relative_to(source) if path == source or source in path.parents else path


def small_run(
    folder: Path, *, model: torch.nn.Module | None = None, seed: int = 3, **options: Anything
) -> SparseEncoderTrainer:
    """Make the trainer of a run of three updates, two batches each, with a checkpoint after each."""
    model = tiny_encoder(dropout=0.3, seed=seed) if model is None else model
    options = {
        "gradient_accumulation_steps": 2,
        "max_steps": 3,
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 2,
        "warmup_steps": 1,
        "weight_decay": 0.1,
        **options,
    }
    return trainer(folder, model, rows=pairs(21), **options)


def weights_digest(model: torch.nn.Module) -> str:
    """Return a digest of the bytes of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def in_child(work: Callable[[], None]) -> int:
    """Call something in a forked process; returns its exit status, 1 with a traceback if it raises."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: B036  (nothing may go on in the child)
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
