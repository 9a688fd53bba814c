"""What an ONNX file says of other files, read before anything opens it. Knows the frame of protobuf, no operator.

Only the messages on the way to a tensor are looked into; of a tensor only where its numbers are.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sparse_encoder.checkpoint import CheckpointError, open_regular, resolve_inside

_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Numbers of the fields that lead to tensors, by message; an entry is a key and a value of external data."""
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_SHIFT = 63
MAX_FIELDS = 20_000_000
"""More fields than this are no model: the walk ends."""


class _Message(NamedTuple):
    kind: str
    begin: int
    end: int


def check_onnx_file(path: Path) -> list[Path]:
    """Check that a graph is a file, and names no file outside its own folder.

    Args:
        path: The graph.

    Returns:
        The files with its weights beside it, each once.

    Raises:
        FileNotFoundError: If there is no graph.
        CheckpointError: If it is no regular file, no protobuf message, or names a file that is missing, no regular
            file or outside of its folder.
    """
    places = sorted(_external_locations(path))
    found = []
    for place in places:
        beside = resolve_inside(path.parent, place, error=CheckpointError)
        try:
            open_regular(beside, error=CheckpointError).close()
        except FileNotFoundError as reason:
            raise CheckpointError(f"its weights are in {place!r}, which is not there", path=path) from reason
        found.append(beside)
    return found


def _external_locations(path: Path) -> set[str]:
    """Return where the weights of a graph are, besides the graph itself."""
    with open_regular(path, error=CheckpointError) as file:
        if file.read(1) == b"":
            raise CheckpointError("is empty", path=path)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return set(_locations(data))
            except (ValueError, IndexError) as reason:
                raise CheckpointError(f"is no ONNX graph: {reason}", path=path) from reason


def _locations(data: mmap.mmap) -> Iterator[str]:
    """Yield the values of the external data's key ``location``."""
    pending = [_Message("model", 0, len(data))]
    left, has_graph = MAX_FIELDS, False
    while pending:
        message = pending.pop()
        if message.kind == "entry":
            yield from _location_of(data, message)
            continue
        children = _CHILDREN[message.kind]
        for number, begin, end in _fields(data, message):
            left -= 1
            if left < 0:
                raise ValueError(f"it has more than {MAX_FIELDS} fields")
            if begin is not None and number in children:
                has_graph = has_graph or children[number] == "graph"
                pending.append(_Message(children[number], begin, end))
    if not has_graph:
        raise ValueError("there is no graph in it")


def _location_of(data: mmap.mmap, message: _Message) -> Iterator[str]:
    pair = {number: data[begin:end] for number, begin, end in _fields(data, message) if begin is not None}
    if pair.get(_KEY) == b"location":
        yield pair.get(_VALUE, b"").decode("utf-8")


def _fields(data: mmap.mmap, message: _Message) -> Iterator[tuple[int, int | None, int]]:
    """Yield number, begin and end of each field of a message; begin is None for numbers."""
    place = message.begin
    while place < message.end:
        tag, place = _varint(data, place, message.end)
        number, wire = tag >> 3, tag & 7
        begin: int | None = None
        if wire == _VARINT:
            _, place = _varint(data, place, message.end)
        elif wire == _BYTES:
            size, begin = _varint(data, place, message.end)
            place = begin + size
        elif wire in (_FIXED64, _FIXED32):
            place += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"byte {place} begins a field of the unknown type {wire}")
        if place > message.end or number == 0:
            raise ValueError(f"a field ends at byte {place}, after the {message.kind} it is in, at {message.end}")
        yield number, begin, place


def _varint(data: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= end or shift > _MAX_SHIFT:
            raise ValueError(f"a number at byte {place} does not end")
        byte = data[place]
        value |= (byte & 127) << shift
        place += 1
        shift += 7
        if byte < 128:
            return value, place


def digest_of(files: list[Path]) -> str:
    """Hash files, in order, in hex."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
