"""One ``pytorch_model.bin``: a pickle, opened by ``torch.load(weights_only=True)`` and nothing else."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from io import BufferedReader
from pathlib import Path

import torch
from torch import Tensor

from sparse_encoder.checkpoint.errors import CheckpointError
from sparse_encoder.checkpoint.paths import open_regular
from sparse_encoder.checkpoint.safetensors_file import DTYPES, MAX_TENSORS, check_finite, check_name

_MAX_TIES = 4  # how often, on average, a value may be shared; tied weights share the largest tensor once
_FAILURES = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
)
"""What damaged or hostile bytes make the restricted unpickler raise."""


def read_torch_file(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file written by ``torch.save``, without running what is in it.

    Args:
        path: The file.

    Returns:
        Tensors by name on the CPU. Two names may share one tensor, as in the file.

    Raises:
        FileNotFoundError: If nothing is there.
        CheckpointError: If the file is damaged, needs code to run, or holds anything but named tensors.
    """
    with open_regular(path, error=CheckpointError) as file:
        _check_archive(file, path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch remarks on odd pickles; what it refuses is an error
                values = torch.load(file, map_location="cpu", weights_only=True)
        except _FAILURES as reason:
            raise CheckpointError(
                f"cannot be read by torch.load(weights_only=True): {str(reason).splitlines()[:1]}",
                path=path,
                hint="If you trust its origin, open it where it was made and save the weights as safetensors",
            ) from reason
    if not isinstance(values, dict):
        raise CheckpointError(f"must hold named tensors, got {type(values).__name__}", path=path)
    if len(values) > MAX_TENSORS:
        raise CheckpointError(f"has {len(values)} tensors; at most {MAX_TENSORS} are read", path=path)
    tensors = {name: _checked(name, value, path) for name, value in values.items()}
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if claimed > _MAX_TIES * path.stat().st_size:
        raise CheckpointError(f"claims {claimed} bytes of values, far more than it has", path=path)
    for name, tensor in tensors.items():
        check_finite(name, tensor, path=path)
    return tensors


def _check_archive(file: BufferedReader, path: Path) -> None:
    """Refuse an archive that would unpack to more than it is; ``torch.save`` never compresses."""
    if file.read(4) == b"PK\x03\x04":
        try:
            packed = [entry.filename for entry in zipfile.ZipFile(file).infolist() if entry.compress_type]
        except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError) as reason:
            raise CheckpointError(f"is a damaged archive: {reason}", path=path) from reason
        if packed:
            raise CheckpointError(f"has compressed records, which torch.save never writes: {packed[:3]}", path=path)
    file.seek(0)


def _checked(name: object, value: object, path: Path) -> Tensor:
    if not isinstance(name, str):
        raise CheckpointError(f"has an entry called {name!r}; names are strings", path=path)
    check_name(name, path=path)
    if not isinstance(value, Tensor):
        raise CheckpointError(f"must be a tensor, got {type(value).__name__}", path=path, field=name)
    if value.layout != torch.strided or value.device.type != "cpu" or value.dtype not in DTYPES.values():
        raise CheckpointError(
            f"has the type {value.dtype}, layout {value.layout} and device {value.device}; supported are plain tensors"
            f" of {sorted(DTYPES)}",
            path=path,
            field=name,
        )
    return value.detach()
