"""The checkpoint folders of a run: appear whole, are found by number, and go when there are too many.

Knows nothing of what a checkpoint holds but its list of files.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparse_encoder.checkpoint import CheckpointError, staged_folder
from sparse_encoder.training.checkpoints.manifest import check_manifest, write_manifest

logger = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-(\d+)")
_TEMPORARY = re.compile(r"\.tmp-(\d+)-[0-9a-f]+")
_TRASH = ".trash-"


def checkpoint_path(output_dir: Path, step: int) -> Path:
    """Return the folder of the checkpoint after ``step`` updates."""
    return output_dir / f"checkpoint-{step}"


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Return the checkpoints of a folder by number of updates, whole or not."""
    if not output_dir.is_dir():
        return []
    found = [path for path in output_dir.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """Return the number of updates in a checkpoint's name."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


@contextmanager
def new_checkpoint(target: Path) -> Iterator[Path]:
    """Fill a checkpoint out of sight, list its files, and publish it by one rename.

    An older folder of the same name is moved away right before, and removed after.

    Args:
        target: The folder to appear.

    Yields:
        An empty folder to write into.
    """
    old = _trash_name(target)
    try:
        with staged_folder(target) as folder:
            yield folder
            write_manifest(folder)
            if target.exists():
                os.rename(target, old)
    except BaseException:
        if old.exists() and not target.exists():
            os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def find_checkpoint(output_dir: Path) -> Path:
    """Return the checkpoint with the highest number whose files are whole; says so if a higher one is damaged.

    Raises:
        ValueError: If there is no checkpoint.
        CheckpointError: If all are damaged; names the first fault of the highest.
    """
    first_fault: CheckpointError | None = None
    for checkpoint in reversed(list_checkpoints(output_dir)):
        try:
            check_manifest(checkpoint)
        except CheckpointError as fault:
            logger.warning("%s cannot be resumed from, the one before is tried: %s", checkpoint, fault)
            first_fault = first_fault or fault
        else:
            return checkpoint
    if first_fault is None:
        raise ValueError(f"resume_from_checkpoint=True, but there is no checkpoint in {output_dir}")
    raise first_fault


def rotate_checkpoints(newest: Path, best: Path | None, limit: int) -> None:
    """Remove checkpoints beyond a number, the lowest first, never the newest nor the best.

    Those with a higher number than the newest are of an earlier run, and go before all others.
    """
    kept = {newest.name, *([] if best is None else [best.name])}
    checkpoints = sorted(
        list_checkpoints(newest.parent), key=lambda path: (step_of(path) <= step_of(newest), step_of(path))
    )
    surplus = len(checkpoints) - max(limit, len(kept))
    for checkpoint in [path for path in checkpoints if path.name not in kept][: max(0, surplus)]:
        logger.info("%s is removed, save_total_limit is %d", checkpoint, limit)
        trash = _trash_name(checkpoint)
        os.rename(checkpoint, trash)
        shutil.rmtree(trash, ignore_errors=True)


def sweep(output_dir: Path) -> None:
    """Remove what killed processes have left: half-removed checkpoints, and half-written ones of dead processes."""
    if not output_dir.is_dir():
        return
    for path in output_dir.iterdir():
        temporary = _TEMPORARY.fullmatch(path.name)
        if path.name.startswith(_TRASH) or (temporary and not _is_alive(int(temporary[1]))):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _trash_name(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{_TRASH}{checkpoint.name}-{secrets.token_hex(6)}")


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # signal 0 is not a question there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
