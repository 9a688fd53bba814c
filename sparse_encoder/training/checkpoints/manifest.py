"""A list of a folder's files with their digests, so that a damaged checkpoint is refused; knows no file's meaning."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sparse_encoder.checkpoint import CheckpointError, open_regular, read_json_object, resolve_inside, write_json

MANIFEST = "MANIFEST.json"
FORMAT = 1
_CHUNK_BYTES = 1 << 20


def write_manifest(folder: Path) -> None:
    """List all files of a folder, those in folders too, with size and sha256; the list is on the disk at the end."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    write_json(folder / MANIFEST, {"format": FORMAT, "files": files, "sha256": _digest(files)})


def check_manifest(folder: Path, *, digests: bool = True) -> set[str]:
    """Check all files of a folder against its list; returns their names.

    Args:
        folder: What :func:`write_manifest` was called with.
        digests: Read the files and compare their sha256 too, not only their sizes.

    Raises:
        CheckpointError: If the list is missing or damaged, or a file of it is missing or altered.
    """
    files = _read_manifest(folder)
    for name, listed in files.items():
        path = resolve_inside(folder, name, error=CheckpointError)
        if not path.is_file():
            raise CheckpointError(f"the file is missing; {MANIFEST} lists it", path=path)
        size = path.stat().st_size
        if size != listed["bytes"]:
            raise CheckpointError(f"the file has {size} bytes; {MANIFEST} lists {listed['bytes']}", path=path)
        if digests and _sha256(path) != listed["sha256"]:
            raise CheckpointError(f"the file was altered: its sha256 is not that of {MANIFEST}", path=path)
    return set(files)


def _read_manifest(folder: Path) -> dict[str, dict[str, Any]]:  # sizes and digests
    """Return the checked list of files."""
    path = resolve_inside(folder, MANIFEST, error=CheckpointError)
    if not path.is_file():
        raise CheckpointError(
            f"there is no {MANIFEST}", path=folder, hint="Was it written by this library, and to its end?"
        )
    manifest = read_json_object(path, error=CheckpointError)
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"format must be {FORMAT}, got {manifest.get('format')!r}", path=path, field="format")
    files = manifest.get("files")
    if not isinstance(files, dict) or manifest.get("sha256") != _digest(files):
        raise CheckpointError("the list was altered: its sha256 is not its own", path=path, field="sha256")
    for name, listed in files.items():
        if not isinstance(listed, dict) or not {"bytes", "sha256"} <= listed.keys():
            raise CheckpointError(f"must have bytes and sha256, got {listed!r:.100}", path=path, field=name)
    return files


def _digest(files: object) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(path, error=CheckpointError) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
