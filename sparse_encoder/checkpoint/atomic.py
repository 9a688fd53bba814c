"""Files and folders that appear whole or not at all.

Everything is written beside its place, flushed to the disk and renamed; several processes that fill one folder take
turns. Knows weight files and graphs by name only, to take away those of an earlier save that a new one would be mixed
up with.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparse_encoder.checkpoint.folder_lock import folder_lock
from sparse_encoder.checkpoint.graph_names import graph_files
from sparse_encoder.checkpoint.weight_names import ADAPTER_FILES, WeightNames, is_plain, set_of


def temporary_name() -> str:
    """Return a name for what is not finished; it tells whose it is, so that it can go when that process has ended."""
    return f".tmp-{os.getpid()}-{secrets.token_hex(6)}"


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a part.

    Args:
        path: The file; its folder must exist. A link at this place is replaced, what it points to is left alone.
        data: The content.
    """
    temporary = path.with_name(temporary_name())
    try:
        with open(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666), "wb"
        ) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_path(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, line ends as they are; otherwise as :func:`write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object, *, indent: int | None = 2, sort_keys: bool = False) -> None:
    """Write a value as JSON; otherwise as :func:`write_bytes`.

    Args:
        path: The file.
        value: Dicts, lists, strings, finite numbers, booleans and None.
        indent: Spaces per level; None puts everything on one line.
        sort_keys: Whether keys are sorted.

    Raises:
        ValueError: If a number is NaN or infinite.
        TypeError: If JSON cannot hold the value.
    """
    write_text(path, json.dumps(value, indent=indent, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def staged_folder(target: Path, *, replaces_adapters: bool = False) -> Iterator[Path]:
    """Fill a folder out of sight, then put it in place.

    A target that does not exist appears by one rename. Into one that exists each file is moved by a rename of its own;
    weight files come first and in an order in which a crash leaves the old weights, the new ones, or a folder that
    refuses to load, never a mixture. Weight files of an earlier save that the new one lacks are removed; and with any
    weights the ONNX graphs of earlier ones, before anything is moved. Of several processes that do so at once the last
    one wins, with all its files: while one moves them, the others wait.

    Args:
        target: The folder to appear; missing parents are made.
        replaces_adapters: Whether what is written is a whole model, so that an adapter beside weights of an earlier one
            goes with them. An adapter that is written replaces one that is there in any case.

    Yields:
        An empty folder to write into.

    Raises:
        FileExistsError: If ``target``, or a path in it that is to be a folder, is a file, or the reverse.
        TimeoutError: If another process takes a minute to move its files.
    """
    target = Path(os.path.abspath(target))
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{target} is to be a folder and is a file")
    made = make_parents(target)
    stage = _stage_place(target)
    try:
        stage.mkdir()
        yield stage
        sync_tree(stage)
        if target.exists() or not _appear(stage, target):
            with folder_lock(target, exclusive=True):
                _merge(stage, target, replaces_adapters=replaces_adapters)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        for folder in made:
            _remove_if_empty(folder)
        raise


def _appear(stage: Path, target: Path) -> bool:
    """Rename a folder to a place where nothing was; returns False if another process has just filled it."""
    try:
        os.rename(stage, target)
    except OSError as reason:
        if reason.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        return False
    sync_path(target.parent)
    return True


def _stage_place(target: Path) -> Path:
    """Name a folder on the target's file system: beside it, or in it if it is a mount or its parent is read-only."""
    parent = target.parent
    beside = not target.exists() or (
        target.stat().st_dev == parent.stat().st_dev and os.access(parent, os.W_OK | os.X_OK)
    )
    return (parent if beside else target) / temporary_name()


def make_parents(target: Path) -> list[Path]:
    """Make the folders above the target, and see that they outlive a crash; returns those made, the innermost first."""
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    for folder in reversed(made):
        sync_path(folder.parent)
    return made


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _merge(stage: Path, target: Path, *, replaces_adapters: bool) -> None:
    """Move the staged files over those of a folder that exists."""
    files = sorted(path.relative_to(stage) for path in stage.rglob("*") if not path.is_dir())
    folders = sorted(path.relative_to(stage) for path in stage.rglob("*") if path.is_dir())
    for name in files:
        if (target / name).is_dir():
            raise FileExistsError(f"{target / name} is to be a file and is a folder")
    if any(set_of(name.name) is not None or name.name in ADAPTER_FILES for name in files):
        _remove_graphs(target)
    for name in folders:
        (target / name).mkdir(exist_ok=True)
    for folder in (Path(), *folders):
        _remove_adapter(stage / folder, target / folder, with_weights=replaces_adapters)
        _replace_weights(stage / folder, target / folder)
    for name in files:
        if (stage / name).exists():
            os.replace(stage / name, target / name)
    for folder in (Path(), *folders):
        sync_path(target / folder)
    shutil.rmtree(stage)


def _remove_graphs(target: Path) -> None:
    """Take away graphs that other weights were in."""
    graphs = graph_files(target)
    for path in graphs:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in graphs}:
        sync_path(folder)


def _remove_adapter(stage: Path, target: Path, *, with_weights: bool) -> None:
    """Take away an adapter that is replaced, or that would be put on weights that are not its own."""
    new = os.listdir(stage)
    is_replaced = ADAPTER_FILES[0] in new or (with_weights and any(is_plain(name) for name in new))
    about = target / ADAPTER_FILES[0]
    if is_replaced and (about.exists() or about.is_symlink()):  # the others are nobody's without it
        for name in ADAPTER_FILES:
            (target / name).unlink(missing_ok=True)
        sync_path(target)


def _replace_weights(stage: Path, target: Path) -> None:
    """Move the weight files of one folder, and take away those of an earlier save."""
    new = sorted(name for name in os.listdir(stage) if set_of(name) is not None)
    sets = {names for names in map(set_of, new) if names is not None}
    for names in sorted(sets, key=lambda names: (names.ending, names.variant or "")):  # pickles first: read last
        _move_set(names, [name for name in new if set_of(name) == names], stage, target)
    for outdated in {outdated for names in sets for outdated in names.outdated}:
        stale = {name for name in os.listdir(target) if set_of(name) == outdated}.difference(new)
        for name in sorted(stale, key=_when_removed):
            (target / name).unlink(missing_ok=True)


def _when_removed(name: str) -> tuple[bool, bool]:
    """Put the index first, without which nobody reads a shard, and the single file last, which is read before both."""
    return not name.endswith(".json"), "-of-" not in name


def _move_set(names: WeightNames, new: list[str], stage: Path, target: Path) -> None:
    """Move the files of one set, so that nobody can read them together with those of an earlier save."""
    if names.index in new:
        # Shards of two saves may have the same names: without the old index nobody can read a mixture.
        (target / names.index).unlink(missing_ok=True)
        sync_path(target)
        new = [*(name for name in new if name != names.index), names.index]
    for name in new:
        os.replace(stage / name, target / name)
    sync_path(target)


def sync_tree(folder: Path) -> None:
    """Flush everything in a folder to the disk, whoever has written it."""
    for path in folder.rglob("*"):
        sync_path(path)
    sync_path(folder)


def sync_path(path: Path) -> None:
    """Flush a file or the names in a folder to the disk."""
    windows = os.name == "nt"  # which cannot open a folder, and flushes only what is open for writing
    if windows and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
