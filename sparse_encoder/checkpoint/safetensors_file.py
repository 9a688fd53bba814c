"""One safetensors file: checked before it is believed, read rather than mapped.

The official parser judges the header; what it lets through and we do not (a name given twice, odd names, a million
empty tensors, types no model of ours has) is refused before it is asked. Mapping the file would let whoever shortens
it later end this process, so the numbers are read into memory of our own.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sparse_encoder.checkpoint.errors import CheckpointError
from sparse_encoder.checkpoint.json_files import parse_json
from sparse_encoder.checkpoint.paths import open_regular

MAX_HEADER_BYTES = 4_000_000
MAX_TENSORS = 10_000
MAX_NAME_LENGTH = 500
_MAX_MEMBERS = 10 * MAX_TENSORS
_MAX_AXES = 8
_MAX_AXIS = 2**40
DTYPES = {
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I32": torch.int32,
    "I64": torch.int64,
    "U8": torch.uint8,
}
"""What weights and buffers may be made of; quantised types are not."""


class TensorInfo(NamedTuple):
    """What is known of a stored tensor before it is read."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def is_floating_point(self) -> bool:
        """Whether it holds real numbers."""
        return self.dtype.is_floating_point


class _Entry(NamedTuple):
    """Where one tensor lies in the data that follow the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def describe_safetensors(path: Path) -> dict[str, TensorInfo]:
    """Check a safetensors file and say what is in it, without reading the numbers.

    Args:
        path: The file.

    Returns:
        Type and shape of every tensor by name.

    Raises:
        FileNotFoundError: If nothing is there.
        CheckpointError: If the file breaks a rule of the format or of this module.
    """
    with open_regular(path, error=CheckpointError) as file:
        entries, _ = _read_header(file, path)
        _ask_official_parser(path)
    return {name: TensorInfo(entry.dtype, entry.shape) for name, entry in entries.items()}


def stream_safetensors(path: Path, names: Collection[str] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Read the tensors of a safetensors file into memory, one at a time.

    Args:
        path: The file.
        names: Which of them; None for all.

    Yields:
        Names and tensors on the CPU, in the order of the file.

    Raises:
        FileNotFoundError: If nothing is there.
        CheckpointError: If the file breaks a rule of the format or of this module.
    """
    with open_regular(path, error=CheckpointError) as file:
        entries, start = _read_header(file, path)
        _ask_official_parser(path)
        for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
            if names is None or name in names:
                file.seek(start + entry.begin)
                yield name, _read_one(file, entry, path, name)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a safetensors file into memory.

    Args:
        path: The file.

    Returns:
        Tensors by name on the CPU, in the order of the file.

    Raises:
        FileNotFoundError: If nothing is there.
        CheckpointError: If the file breaks a rule of the format or of this module.
    """
    return dict(stream_safetensors(path))


def check_name(name: str, *, path: Path | None = None) -> None:
    """Refuse tensor names that are no dotted names.

    Raises:
        CheckpointError: If ``name`` is empty, the format's own ``__metadata__``, longer than 500 characters, or has
            blanks, slashes, ``..`` or characters that cannot be printed.
    """
    fine = name.isprintable() and not any(bad in name for bad in (" ", "/", "\\", ".."))
    if name in ("", "__metadata__") or len(name) > MAX_NAME_LENGTH or not fine:
        raise CheckpointError(f"a tensor cannot be called {name[:100]!r} ({len(name)} characters)", path=path)


def parse_members(data: bytes, path: Path) -> dict[str, Any]:
    """Parse a JSON object that may be larger than most, unless it has so many members that parsing would hurt.

    Raises:
        CheckpointError: If it has, or is no strict JSON, or no object.
    """
    if data.count(b":") > _MAX_MEMBERS:
        raise CheckpointError(f"has more than {_MAX_MEMBERS} members", path=path)
    value = parse_json(data, path=path, error=CheckpointError)
    if not isinstance(value, dict):
        raise CheckpointError(f"must hold a JSON object, got {type(value).__name__}", path=path)
    return value


def check_finite(name: str, tensor: Tensor, *, path: Path) -> None:
    """Refuse NaN and infinities.

    Raises:
        CheckpointError: If a floating-point tensor has any.
    """
    if not is_finite(tensor):
        raise CheckpointError("has NaN or infinite values", path=path, field=name)


def is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor has neither NaN nor infinities; what has no floating point has none."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = torch.aminmax(tensor.detach())  # either is NaN if any value is
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _read_header(file: BufferedReader, path: Path) -> tuple[dict[str, _Entry], int]:
    """Return where the tensors lie, and where the data begin."""
    size = os.fstat(file.fileno()).st_size
    first = file.read(256)
    _recognise(first, size, path)
    length = int.from_bytes(first[:8], "little")
    if length > MAX_HEADER_BYTES or length < 2 or 8 + length > size:
        raise CheckpointError(
            f"says its header has {length} bytes; it must be 2 to {MAX_HEADER_BYTES} and fit the file of {size} bytes",
            path=path,
        )
    file.seek(8)
    data = file.read(length)
    if not data.startswith(b"{"):  # blanks are refused too: other readers disagree about them
        raise CheckpointError("has a header that is no JSON object", path=path)
    header = parse_members(data, path)
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise CheckpointError(f"has {len(header)} tensors; at most {MAX_TENSORS} are read", path=path)
    return {name: _entry(name, value, path) for name, value in header.items()}, 8 + length


def _recognise(first: bytes, size: int, path: Path) -> None:
    """Say what a file is that only has the name of a safetensors file."""
    start = first.lstrip().lower()
    if first.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            "is a Git LFS pointer, not the weights", path=path, hint="Run `git lfs pull` in the repository"
        )
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError("is a web page, not the weights", path=path, hint="Download the file again")
    if first.startswith((b"PK\x03\x04", b"\x80\x02\x8a")):
        raise CheckpointError("is a PyTorch file under the name of a safetensors file", path=path)
    if size < 10:
        raise CheckpointError(f"has only {size} bytes; it was cut off", path=path, hint="Download the file again")


def _entry(name: str, value: Any, path: Path) -> _Entry:  # noqa: ANN401 - parsed JSON of unknown shape
    check_name(name, path=path)
    if not isinstance(value, dict) or sorted(value) != ["data_offsets", "dtype", "shape"]:
        raise CheckpointError("must have dtype, shape and data_offsets", path=path, field=name)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(f"has the type {dtype!r}; supported are {sorted(DTYPES)}", path=path, field=name)
    if not _are_sizes(shape, _MAX_AXIS) or len(shape) > _MAX_AXES:
        raise CheckpointError(f"has the shape {str(shape)[:100]}", path=path, field=name)
    if not _are_sizes(offsets, 2**63) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(f"has the data_offsets {str(offsets)[:100]}", path=path, field=name)
    return _Entry(DTYPES[dtype], tuple(shape), *offsets)


def _are_sizes(values: object, limit: int) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value <= limit for value in values)


def _ask_official_parser(path: Path) -> None:
    """Let the official parser check offsets, sizes, holes and overlaps against the file."""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as reason:
        raise CheckpointError(f"is no valid safetensors file: {reason}", path=path) from reason


def _read_one(file: BufferedReader, entry: _Entry, path: Path, name: str) -> Tensor:
    tensor = torch.empty(entry.shape, dtype=entry.dtype, device="cpu")
    if tensor.numel():
        target = tensor.view(-1).view(torch.uint8).numpy()
        if target.nbytes != entry.end - entry.begin or file.readinto(target.data) != target.nbytes:
            raise CheckpointError("was cut off while it was read", path=path, field=name)
    check_finite(name, tensor, path=path)
    return tensor
