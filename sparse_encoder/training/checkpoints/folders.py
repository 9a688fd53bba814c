"""The checkpoint folders of a run: appear whole, are found by number, and go when there are too many.

Knows nothing of what a checkpoint holds but its list of files. At every moment in which a process may be killed, or
the power fail, the last checkpoint that was published is there in full: a new one of the same number is published as
``checkpoint-N.1`` and takes the name of the old one once that is out of the way.
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

from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.checkpoint.atomic import make_parents, sync_path, sync_tree, temporary_name
from sparse_encoder.checkpoint.left_over import is_left_over
from sparse_encoder.training.checkpoints.manifest import check_manifest, write_manifest

logger = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-(\d+)(?:\.(\d+))?")
_TRASH, _CORRUPT, _REPLACED = ".trash-", ".corrupt", ".replaced"


def checkpoint_path(output_dir: Path, step: int) -> Path:
    """Return the folder of the checkpoint after ``step`` updates."""
    return output_dir / f"checkpoint-{step}"


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Return the checkpoints of a folder by number of updates, the newer of two last, whole or not."""
    if not output_dir.is_dir():
        return []
    found = [path for path in output_dir.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=_order)


def step_of(checkpoint: Path) -> int:
    """Return the number of updates in a checkpoint's name."""
    return _order(checkpoint)[0]


@contextmanager
def new_checkpoint(target: Path) -> Iterator[Path]:
    """Fill a checkpoint out of sight, list its files, and publish it by one rename.

    Everything in it is on the disk before its list is written, the list before the rename, and the rename before this
    returns. An older folder of the same name is there until then.

    Args:
        target: The folder to appear.

    Yields:
        An empty folder on the same file system to write into.

    Raises:
        OSError: If the disk is full, read-only or broken; what was there is as it was.
    """
    target = Path(os.path.abspath(target))
    make_parents(target)
    stage = target.with_name(temporary_name())
    try:
        stage.mkdir()
        yield stage
        sync_tree(stage)
        write_manifest(stage)
        place = _free_place(target)
        os.rename(stage, place)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    sync_path(target.parent)
    if _NAME.fullmatch(target.name):
        settle(target.parent)
    elif place != target:
        _take_place(place, target)


def settle(output_dir: Path) -> None:
    """Give each ``checkpoint-N.1`` the name of the older checkpoint that it has replaced, which is removed.

    It was whole when it got its name; if it is not any more, both stay.
    """
    for newer in list_checkpoints(output_dir):
        step, turn = _order(newer)
        if turn == 0:
            continue
        older = checkpoint_path(output_dir, step)
        if older.exists():
            try:
                check_manifest(newer)
            except CheckpointError as fault:
                logger.warning("%s does not take the place of %s: %s", newer, older.name, fault)
                continue
        _take_place(newer, older)


def settle_folder(target: Path) -> None:
    """Do for a checkpoint without a number, and those beside it that were to take its place, what :func:`settle` does.

    Args:
        target: The folder.
    """
    places = target.parent.glob(f"{target.name}.*") if target.parent.is_dir() else ()
    newer = [place for place in places if place.suffix[1:].isdecimal() and place.is_dir()]
    for place in sorted(newer, key=lambda place: int(place.suffix[1:])):
        try:
            check_manifest(place)
        except CheckpointError as fault:
            logger.warning("%s does not take the place of %s: %s", place, target.name, fault)
        else:
            _take_place(place, target)


def find_checkpoint(output_dir: Path) -> Path:
    """Return the checkpoint with the highest number whose files are whole.

    Higher ones that are damaged are renamed to ``checkpoint-N.corrupt``, with a warning each. Only one process of a
    run may call this.

    Raises:
        ValueError: If there is no checkpoint.
        CheckpointError: If all are damaged; names the first fault of the highest. None is renamed.
    """
    settle(output_dir)
    faults: dict[Path, CheckpointError] = {}
    for checkpoint in reversed(list_checkpoints(output_dir)):
        try:
            check_manifest(checkpoint)
        except CheckpointError as reason:
            faults[checkpoint] = reason
        else:
            _set_aside(faults)
            return checkpoint
    for fault in faults.values():
        raise fault
    raise ValueError(f"resume_from_checkpoint=True, but there is no checkpoint in {output_dir}")


def check_checkpoint(checkpoint: Path) -> None:
    """Check the files of a checkpoint that was asked for by name.

    Raises:
        FileNotFoundError: If there is no such folder.
        CheckpointError: If it is damaged; offers the one before it that is whole.
    """
    if not checkpoint.is_dir():
        raise FileNotFoundError(f"there is no checkpoint {checkpoint}")
    try:
        check_manifest(checkpoint)
    except CheckpointError as fault:
        offer = _previous(checkpoint)
        if offer is None:
            raise
        hint = f"The one before it is whole: resume_from_checkpoint={str(offer)!r}"
        raise CheckpointError(f"cannot be resumed from: {fault}", path=checkpoint, hint=hint) from fault


def rotate_checkpoints(newest: Path, best: Path | None, limit: int) -> None:
    """Remove checkpoints beyond a number, the lowest first, never the newest nor the best.

    Those with a higher number than the newest are of an earlier run, and go before all others. Nothing is removed
    unless the newest is there in full.

    Raises:
        CheckpointError: If the newest is not.
    """
    check_manifest(newest, digests=False)
    present = list_checkpoints(newest.parent)
    last = step_of(newest)
    kept = {last} | {step_of(each) for each in present if best is not None and each.name == best.name}
    steps = sorted({step_of(each) for each in present}, key=lambda step: (step <= last, step))
    surplus = len(steps) - max(limit, len(kept))
    removed = [step for step in steps if step not in kept][: max(0, surplus)]
    for checkpoint in present:
        if step_of(checkpoint) in removed:
            logger.info("%s is removed, save_total_limit is %d", checkpoint, limit)
            _remove(checkpoint)


def keep_checkpoint(best: Path) -> None:
    """Remove all other checkpoints beside one, unless that is not there in full.

    Raises:
        CheckpointError: If it is not.
    """
    check_manifest(best)
    for checkpoint in list_checkpoints(best.parent):
        if checkpoint.name != best.name:
            logger.info("%s is removed: the run is through, and save_total_limit=1 keeps the best", checkpoint)
            _remove(checkpoint)


def replace_checkpoints(output_dir: Path) -> None:
    """Take the checkpoints of another run out of the way; they are kept until :func:`remove_replaced`."""
    for checkpoint in list_checkpoints(output_dir):
        place = _free_name(checkpoint.with_name(checkpoint.name + _REPLACED))
        logger.warning("overwrite_output_dir=True: %s is now %s, until a new one is written", checkpoint, place.name)
        os.rename(checkpoint, place)


def remove_replaced(output_dir: Path) -> None:
    """Remove what :func:`replace_checkpoints` kept, now that there is a newer checkpoint."""
    for path in list(output_dir.iterdir()):
        name, found, _ = path.name.partition(_REPLACED)
        if found and _NAME.fullmatch(name) and path.is_dir():
            _remove(path)


def sweep(output_dir: Path) -> None:
    """Remove what killed processes have left: half-removed checkpoints, and half-written ones of dead processes."""
    if not output_dir.is_dir():
        return
    for path in list(output_dir.iterdir()):
        if path.name.startswith(_TRASH) or is_left_over(path):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    settle(output_dir)


def _order(checkpoint: Path) -> tuple[int, int]:
    """Return the number of updates, and which of several of that number it is."""
    match = _NAME.fullmatch(checkpoint.name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)


def _free_place(target: Path) -> Path:
    """Return where to publish a checkpoint: its own place, or beside the older one that is there."""
    turn, place = 0, target
    while place.exists():
        turn += 1
        place = target.with_name(f"{target.name}.{turn}")
    return place


def _free_name(path: Path) -> Path:
    """Return a path, or one beside it with a number if it is taken."""
    number, place = 0, path
    while place.exists():
        number += 1
        place = path.with_name(f"{path.name}-{number}")
    return place


def _set_aside(faults: dict[Path, CheckpointError]) -> None:
    """Rename damaged checkpoints, and say so."""
    for checkpoint, fault in faults.items():
        place = _free_name(checkpoint.with_name(checkpoint.name + _CORRUPT))
        logger.warning("%s is damaged and is now %s, the one before is tried: %s", checkpoint, place.name, fault)
        os.rename(checkpoint, place)


def _previous(checkpoint: Path) -> Path | None:
    """Return the checkpoint beside one with the highest number below its own that is whole."""
    if not _NAME.fullmatch(checkpoint.name):
        return None
    others = [each for each in list_checkpoints(checkpoint.parent) if _order(each) < _order(checkpoint)]
    for other in reversed(others):
        try:
            check_manifest(other)
        except CheckpointError:
            continue
        return other
    return None


def _take_place(newer: Path, older: Path) -> None:
    """Give a folder the name of another one, which is removed if it is there."""
    trash = _trash_name(older)
    if older.exists():
        os.rename(older, trash)
    os.rename(newer, older)
    sync_path(older.parent)
    shutil.rmtree(trash, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Take a folder out of sight by one rename, then remove it."""
    trash = _trash_name(folder)
    os.rename(folder, trash)
    sync_path(trash.parent)  # else the power may fail with the old name back and some files gone
    shutil.rmtree(trash, ignore_errors=True)


def _trash_name(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{_TRASH}{checkpoint.name}-{secrets.token_hex(6)}")
