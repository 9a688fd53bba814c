"""Named numpy arrays in a folder, written whole and read back checked; knows nothing of what they mean.

The folder holds ``manifest.json`` and files ``arrays-<number>-<hash>.safetensors``, which the manifest lists with size
and sha256; the manifest has a sha256 of its own. A name depends on the content, so that a save over an older one, cut
short at any moment, leaves a folder that reads as the old or as the new one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from sparse_encoder.checkpoint import (
    IndexCorruptError,
    open_regular,
    parse_json,
    read_json_object,
    resolve_inside,
    staged_folder,
    write_bytes,
    write_json,
)

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 4_000_000
MAX_HEADER_BYTES = 1_000_000
_FILE_NAME = re.compile(r"arrays-\d{5}-[0-9a-f]{16}\.safetensors")

_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BOOL": "?",
    **{f"I{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
}
"""What numpy calls the types of safetensors."""

Arrays = Mapping[str, NDArray[Any]]  # any numeric type


class ArrayFolder(NamedTuple):
    """What a folder of arrays is said to be.

    Attributes:
        format: Name of what the arrays are.
        version: Of the format; a reader refuses newer ones.
    """

    format: str
    version: int

    def write(self, folder: Path, settings: Mapping[str, object], files: Iterable[Arrays]) -> None:
        """Write settings and groups of arrays, one file each.

        Args:
            folder: Where to; an older save there is replaced.
            settings: Values that JSON can hold.
            files: Groups of arrays by name.
        """
        entries = []
        with staged_folder(folder) as stage:
            for number, arrays in enumerate(files):
                data = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
                digest = hashlib.sha256(data).hexdigest()
                name = f"arrays-{number:05d}-{digest[:16]}.safetensors"
                write_bytes(stage / name, data)
                entries.append({"name": name, "bytes": len(data), "sha256": digest})
            manifest = {"format": self.format, "version": self.version, "settings": dict(settings), "files": entries}
            write_json(stage / MANIFEST, {**manifest, "sha256": self.digest(manifest)})
        for path in folder.iterdir():  # what an earlier save left
            if _FILE_NAME.fullmatch(path.name) and path.name not in {entry["name"] for entry in entries}:
                path.unlink()

    def read(self, folder: Path, *, memory_map: bool) -> tuple[dict[str, Any], Iterator[dict[str, NDArray[Any]]]]:
        """Read settings and groups of arrays.

        Args:
            folder: Where :meth:`write` wrote to.
            memory_map: Leave the arrays in their file, from where they are read when they are used. The files must
                then neither shrink nor change.

        Returns:
            The settings, and the groups one after the other, each checked when its turn comes.

        Raises:
            FileNotFoundError: If there is no manifest.
            IndexCorruptError: If anything is not as it was written, or was written by a newer version.
        """
        path = resolve_inside(folder, MANIFEST, error=IndexCorruptError)
        manifest = read_json_object(path, max_bytes=MAX_MANIFEST_BYTES, error=IndexCorruptError)
        if manifest.get("format") != self.format:
            raise IndexCorruptError(f"must be a {self.format}, got {str(manifest.get('format'))[:100]!r}", path=path)
        version = manifest.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= self.version:
            raise IndexCorruptError(
                f"is of version {str(version)[:50]}; this library reads versions up to {self.version}",
                path=path,
                hint="Update sparse-encoder",
            )
        if manifest.pop("sha256", None) != self.digest(manifest):
            raise IndexCorruptError("does not match its own sha256", path=path, hint="Build it again")
        settings, files = manifest.get("settings"), manifest.get("files")
        if not isinstance(settings, dict) or not isinstance(files, list):
            raise IndexCorruptError("must have settings and files", path=path)
        return settings, (_read_file(folder, entry, memory_map) for entry in files)

    @staticmethod
    def digest(manifest: Mapping[str, object]) -> str:
        """Hash a manifest in the one spelling that depends on its content alone."""
        return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _read_file(folder: Path, entry: object, memory_map: bool) -> dict[str, NDArray[Any]]:
    """Check one file against the manifest and open its arrays."""
    name, size, digest = _entry(folder, entry)
    path = resolve_inside(folder, name, error=IndexCorruptError)
    try:
        start, header = _check_file(path, size, digest)
        with safe_open(path, framework="np") as file:  # which judges the header; its own arrays would be copies
            arrays = {key: _mapped(path, start, header[key]) for key in file.keys()}  # noqa: SIM118  (it is no dict)
    except FileNotFoundError as reason:
        raise IndexCorruptError("is missing", path=path, hint="Build the index again") from reason
    except (SafetensorError, TypeError) as reason:  # TypeError: a type that numpy does not have
        raise IndexCorruptError(f"is no valid safetensors file: {reason}", path=path) from reason
    return arrays if memory_map else {key: np.array(array) for key, array in arrays.items()}


def _mapped(path: Path, start: int, entry: Mapping[str, Any]) -> NDArray[Any]:
    """Leave an array in its file; a change to it would not reach the file.

    Args:
        path: The file, of safetensors.
        start: Where its data begin.
        entry: What its header says of the array, judged already.

    Raises:
        TypeError: If numpy does not have the type.
    """
    if entry["dtype"] not in _TYPES:
        raise TypeError(f"{entry['dtype']} is no type of numpy's")
    dtype, shape, (begin, end) = np.dtype(_TYPES[entry["dtype"]]), tuple(entry["shape"]), entry["data_offsets"]
    if begin == end:  # an empty piece of a file cannot be mapped
        return np.empty(shape, dtype)
    array = np.memmap(path, dtype, mode="c", offset=start + begin, shape=shape)
    return np.require(np.asarray(array), requirements=["ALIGNED"])


def _entry(folder: Path, entry: object) -> tuple[str, int, str]:
    if isinstance(entry, dict) and sorted(entry) == ["bytes", "name", "sha256"]:
        name, size, digest = entry["name"], entry["bytes"], entry["sha256"]
        fine = isinstance(name, str) and type(size) is int and isinstance(digest, str)
        if fine and _FILE_NAME.fullmatch(name):
            return name, size, digest
    raise IndexCorruptError(f"lists a file as {str(entry)[:200]}", path=folder / MANIFEST)


def _check_file(path: Path, size: int, digest: str) -> tuple[int, dict[str, Any]]:
    """Refuse a file whose size or content is not that of the manifest, or whose header is no plain safetensors one.

    Returns:
        Where its data begin, and its header.
    """
    found = hashlib.sha256()
    with open_regular(path, error=IndexCorruptError) as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, MAX_HEADER_BYTES + 1))
        file.seek(0)
        total = 0
        while chunk := file.read(1 << 20):
            total += len(chunk)
            found.update(chunk)
    if total != size or found.hexdigest() != digest:
        raise IndexCorruptError(
            f"has {total} bytes with sha256 {found.hexdigest()[:16]}..., the manifest says {size} and {digest[:16]}...",
            path=path,
            hint="The file was damaged or replaced; build the index again",
        )
    if length > MAX_HEADER_BYTES:
        raise IndexCorruptError(f"has a header of {length} bytes; at most {MAX_HEADER_BYTES} are read", path=path)
    values: dict[str, Any] = parse_json(header, path=path, error=IndexCorruptError)  # refuses a name given twice
    return 8 + length, values


def pack_strings(texts: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Turn texts into two arrays, ``bytes`` and ``ends``; also texts that are not valid Unicode."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    ends = np.cumsum([len(data) for data in encoded], dtype=np.int64)
    return {"bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8), "ends": ends}


def unpack_strings(arrays: Arrays) -> list[str]:
    """Turn the arrays of :func:`pack_strings` back into texts.

    Raises:
        ValueError: If they are no such arrays.
    """
    if sorted(arrays) != ["bytes", "ends"]:
        raise ValueError(f"texts are kept as bytes and ends, got {sorted(arrays)}")
    data, ends = arrays["bytes"], arrays["ends"]
    if data.dtype != np.uint8 or ends.dtype != np.int64 or data.ndim != 1 or ends.ndim != 1:
        raise ValueError(f"texts are kept as uint8 and int64, got {data.dtype} and {ends.dtype}")
    starts = np.concatenate((np.zeros(1, dtype=np.int64), ends))
    if starts[-1] != len(data) or (starts[1:] < starts[:-1]).any():
        raise ValueError(f"the ends of texts must rise from 0 to {len(data)}")
    whole, places = data.tobytes(), starts.tolist()
    return [whole[begin:end].decode("utf-8", "surrogatepass") for begin, end in zip(places, places[1:], strict=False)]
