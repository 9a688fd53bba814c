"""Named tensors as a folder of safetensors files in the layout of the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from sparse_encoder.checkpoint.atomic import INDEX_NAME, SINGLE_NAME, staged_folder, write_json
from sparse_encoder.checkpoint.safetensors_file import DTYPES, MAX_TENSORS, check_name

_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")


def write_tensors(
    folder: Path,
    tensors: Mapping[str, Tensor],
    *,
    max_shard_bytes: int = 5_000_000_000,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors as ``model.safetensors``, or as shards with an index if they are too many for one file.

    Files appear whole or not at all, and the weight files of an earlier save are removed.

    Args:
        folder: Where to; made if it does not exist.
        tensors: Tensors by name on any device. A shard is filled in their order.
        max_shard_bytes: Largest sum of tensor sizes in one file; a larger tensor gets a file of its own.
        metadata: Texts for the header of each file, besides ``format``.

    Raises:
        ValueError: If a limit is not positive, or a tensor could not be read back: no tensors at all, odd names,
            unsupported types, or two names for one memory.
    """
    if max_shard_bytes <= 0:
        raise ValueError(f"max_shard_bytes must be positive, got {max_shard_bytes}")
    _check(tensors)
    shards = _split(tensors, max_shard_bytes)
    with staged_folder(Path(folder)) as stage:
        names = (
            [SINGLE_NAME]
            if len(shards) == 1
            else [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
        )
        for name, shard in zip(names, shards, strict=True):
            write_safetensors(stage / name, {key: tensors[key] for key in shard}, metadata=metadata)
        if len(shards) > 1:
            totals = {
                "total_parameters": sum(tensor.numel() for tensor in tensors.values()),
                "total_size": sum(map(_size, tensors.values())),
            }
            places = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
            write_json(stage / INDEX_NAME, {"metadata": totals, "weight_map": dict(sorted(places.items()))})


def _check(tensors: Mapping[str, Tensor]) -> None:
    """Refuse what :func:`read_tensors` would refuse, and one memory under two names."""
    if not 0 < len(tensors) <= MAX_TENSORS:
        raise ValueError(f"a checkpoint has 1 to {MAX_TENSORS} tensors, got {len(tensors)}")
    owners: dict[tuple[object, ...], str] = {}
    for name, tensor in tensors.items():
        check_name(name)
        if tensor.layout != torch.strided or tensor.dtype not in DTYPES.values():
            raise ValueError(f"{name!r} must be a plain tensor of {sorted(DTYPES)}, got {tensor.dtype} {tensor.layout}")
        if tensor.numel() == 0:
            continue
        if tensor.is_meta:
            raise ValueError(f"{name!r} has no values: it is on the meta device")
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        owner = owners.setdefault(place, name)
        if owner != name:
            raise ValueError(f"{owner!r} and {name!r} are one tensor; write it under one name and tie it when loading")


def _split(tensors: Mapping[str, Tensor], max_shard_bytes: int) -> list[list[str]]:
    """Fill shards in order, each up to its limit."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        if shards[-1] and filled + _size(tensor) > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += _size(tensor)
    return shards


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write one safetensors file that everybody may read whom the umask lets; views are copied out of what they share.

    It is written in place: call it in a :func:`staged_folder`.

    Args:
        path: The file.
        tensors: Tensors by name on any device.
        metadata: Texts for the header, besides ``format``.

    Raises:
        OSError: If the disk is full, read-only or broken.
    """
    owned = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().to("cpu").contiguous()
        owned[name] = plain if _size(plain) == plain.untyped_storage().nbytes() else plain.clone()
    path.touch()  # with the mode the umask asks for; safetensors would leave a file nobody else can read
    mode = path.stat().st_mode & 0o777
    with system_errors(path):
        save_file(owned, path, {"format": "pt", **(metadata or {})})
    os.chmod(path, mode)


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Raise what a disk refuses to safetensors as what it is.

    Args:
        path: Named in the error.

    Raises:
        OSError: In the place of a ``SafetensorError`` that has its number in its text.
    """
    try:
        yield
    except SafetensorError as reason:
        code = _SYSTEM_ERROR.search(str(reason))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from reason
