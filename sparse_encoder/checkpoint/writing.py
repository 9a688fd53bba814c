"""Named tensors as a folder of safetensors files, or pickles, in the layout of the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from sparse_encoder.checkpoint.atomic import staged_folder, write_json
from sparse_encoder.checkpoint.safetensors_file import DTYPES, MAX_TENSORS, check_name, is_finite
from sparse_encoder.checkpoint.sizes import size_in_bytes
from sparse_encoder.checkpoint.weight_names import WeightNames

MAX_SHARD_SIZE = "5GB"
"""As Hugging Face documents it."""

_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")


def write_tensors(
    folder: Path,
    tensors: Mapping[str, Tensor],
    *,
    max_shard_size: int | str = MAX_SHARD_SIZE,
    variant: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors as ``model.safetensors``, or as shards with an index if they are too many for one file.

    Files appear whole or not at all, and the weight files of an earlier save of the same variant are removed.

    Args:
        folder: Where to; made if it does not exist.
        tensors: Tensors by name on any device. A shard is filled in their order.
        max_shard_size: Largest sum of tensor sizes in one file, as for :func:`size_in_bytes`; a larger tensor gets a
            file of its own, and 0 gives one to each.
        variant: A word to put into the names, as in ``model.fp16.safetensors``.
        metadata: Texts for the header of each file, besides ``format``.

    Raises:
        ValueError: If a size or a variant is malformed, or a tensor could not be read back: no tensors at all, odd
            names, unsupported types, values that are not finite, or two names for one memory.
    """
    names = WeightNames("safetensors", variant)

    def write(path: Path, shard: dict[str, Tensor]) -> None:
        write_safetensors(path, shard, metadata=metadata)

    _write_set(folder, tensors, names, size_in_bytes(max_shard_size), write)


def write_torch_tensors(
    folder: Path,
    tensors: Mapping[str, Tensor],
    *,
    max_shard_size: int | str = MAX_SHARD_SIZE,
    variant: str | None = None,
    save_function: Callable[[object, str], object] = torch.save,
) -> None:
    """Write tensors as ``pytorch_model.bin``, a pickle, or as shards of it; otherwise as :func:`write_tensors`.

    Safetensors files of the same variant are removed too: they would be read in the place of what is written.

    Args:
        folder: Where to; made if it does not exist.
        tensors: Tensors by name on any device.
        max_shard_size: As in :func:`write_tensors`.
        variant: As in :func:`write_tensors`.
        save_function: Writes a dict of tensors on the CPU to a path.

    Raises:
        ValueError: As in :func:`write_tensors`.
    """
    names = WeightNames("bin", variant)

    def write(path: Path, shard: dict[str, Tensor]) -> None:
        save_function({name: _owned(tensor) for name, tensor in shard.items()}, str(path))

    _write_set(folder, tensors, names, size_in_bytes(max_shard_size), write)


def _write_set(
    folder: Path,
    tensors: Mapping[str, Tensor],
    names: WeightNames,
    max_shard_bytes: int,
    write: Callable[[Path, dict[str, Tensor]], None],
) -> None:
    """Write the files of one set of weights, and their index if they are several."""
    _check(tensors)
    shards = split(tensors, names.pattern, max_shard_bytes)
    with staged_folder(Path(folder)) as stage:
        for name, shard in shards.items():
            write(stage / name, {key: tensors[key] for key in shard})
        if len(shards) > 1:
            totals = {
                "total_parameters": sum(tensor.numel() for tensor in tensors.values()),
                "total_size": sum(map(_size, tensors.values())),
            }
            places = {key: name for name, shard in shards.items() for key in shard}
            write_json(stage / names.index, {"metadata": totals, "weight_map": dict(sorted(places.items()))})


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
        if not is_finite(tensor):
            raise ValueError(f"{name!r} has NaN or infinite values, with which no load would take it")
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        owner = owners.setdefault(place, name)
        if owner != name:
            raise ValueError(f"{owner!r} and {name!r} are one tensor; write it under one name and tie it when loading")


def split(tensors: Mapping[str, Tensor], pattern: str, max_shard_bytes: int) -> dict[str, list[str]]:
    """Deal tensors out to files in their order, each filled up to its limit; a larger tensor gets one of its own.

    Args:
        tensors: Tensors by name.
        pattern: Names of the files, for ``format(suffix=...)``.
        max_shard_bytes: The limit; 0 gives a file to each tensor.

    Returns:
        Names of tensors by file.
    """
    from huggingface_hub import split_state_dict_into_shards_factory  # heavy, and of use only here

    dealt = split_state_dict_into_shards_factory(
        dict(tensors), get_storage_size=_size, filename_pattern=pattern, max_shard_size=max_shard_bytes
    )
    return {name: list(keys) for name, keys in dealt.filename_to_tensors.items()}


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
    owned = {name: _owned(tensor) for name, tensor in tensors.items()}
    path.touch()  # with the mode the umask asks for; safetensors would leave a file nobody else can read
    mode = path.stat().st_mode & 0o777
    with system_errors(path):
        save_file(owned, path, {"format": "pt", **(metadata or {})})
    os.chmod(path, mode)


def _owned(tensor: Tensor) -> Tensor:
    """Return a tensor on the CPU that has its memory for itself."""
    plain = tensor.detach().to("cpu").contiguous()
    return plain if _size(plain) == plain.untyped_storage().nbytes() else plain.clone()


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
