"""The weights of a folder as named tensors, whichever of four layouts they are stored in.

Knows no model: which names are wanted is for the caller to say.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sparse_encoder.checkpoint.errors import CheckpointError
from sparse_encoder.checkpoint.paths import read_limited, resolve_inside
from sparse_encoder.checkpoint.safetensors_file import MAX_TENSORS, parse_members, read_safetensors
from sparse_encoder.checkpoint.torch_file import read_torch_file

MAX_INDEX_BYTES = 4_000_000
UNLISTED = re.compile(r"(?:.*\.)?(?:position_ids|pooler\..+)")
"""Names a shard may have that its index does not list: leftovers that every reader skips."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Format:
    """How one kind of weight file is named and read."""

    single: str
    index: str
    shard: re.Pattern[str]
    numbered: re.Pattern[str]
    read: Callable[[Path], dict[str, Tensor]]


_SAFETENSORS = _Format(
    single="model.safetensors",
    index="model.safetensors.index.json",
    shard=re.compile(r"[A-Za-z0-9._-]+\.safetensors"),
    numbered=re.compile(r"model-\d+-of-\d+\.safetensors"),
    read=read_safetensors,
)
_TORCH = _Format(
    single="pytorch_model.bin",
    index="pytorch_model.bin.index.json",
    shard=re.compile(r"[A-Za-z0-9._-]+\.bin"),
    numbered=re.compile(r"pytorch_model-\d+-of-\d+\.bin"),
    read=read_torch_file,
)


def read_tensors(folder: Path, *, use_safetensors: bool | None = None) -> dict[str, Tensor]:
    """Read all weights of a folder.

    The first of these that is there is read, and the others are not opened: ``model.safetensors``,
    ``model.safetensors.index.json`` with its shards, ``pytorch_model.bin``, ``pytorch_model.bin.index.json`` with its
    shards. The last two are pickles; they are opened by ``torch.load(weights_only=True)``, with one warning.

    Args:
        folder: The folder.
        use_safetensors: True refuses the pickles, False reads only them.

    Returns:
        Tensors on the CPU under their names in the files, all finite.

    Raises:
        FileNotFoundError: If the folder is not there.
        NotADirectoryError: If it is a file.
        CheckpointError: If there are no weights, or they are damaged, hostile or at odds with their index.
    """
    folder = Path(folder)
    if not folder.is_dir():
        missing = NotADirectoryError if folder.exists() else FileNotFoundError
        raise missing(f"{folder} is not a folder with weights")
    formats = {None: (_SAFETENSORS, _TORCH), True: (_SAFETENSORS,), False: (_TORCH,)}[use_safetensors]
    for layout in formats:
        for name in (layout.single, layout.index):
            if (folder / name).exists() or (folder / name).is_symlink():
                if layout is _TORCH:
                    _warn(folder)
                return _read_single(folder, layout) if name == layout.single else _read_shards(folder, layout)
    raise _no_weights(folder, [name for layout in formats for name in (layout.single, layout.index)])


def _no_weights(folder: Path, names: list[str]) -> CheckpointError:
    endings = (".bin", ".safetensors", ".h5", ".msgpack", ".ckpt", ".pt", ".pth", ".onnx", ".gguf")
    others = sorted(path.name for path in folder.iterdir() if path.suffix in endings)
    hint = f"There are {others[:10]}, which are not read" if others else None
    return CheckpointError(f"has no weights; looked for {names}", path=folder, hint=hint)


def _warn(folder: Path) -> None:
    code = f"import pathlib, sparse_encoder.checkpoint as c; f = pathlib.Path({str(folder)!r}); "
    warnings.warn(
        f"{folder} has its weights in a pickle. It is read without running any code in it; to convert it, run\n"
        f'  python -c "{code}c.write_tensors(f, c.read_tensors(f))"',
        UserWarning,
        stacklevel=3,
    )


def _read_single(folder: Path, layout: _Format) -> dict[str, Tensor]:
    return layout.read(resolve_inside(folder, layout.single, error=CheckpointError))


def _read_shards(folder: Path, layout: _Format) -> dict[str, Tensor]:
    """Read the shards an index lists, which together must have exactly the tensors it lists."""
    weight_map = _read_index(folder, layout)
    listed: dict[str, set[str]] = defaultdict(set)
    for name, shard in weight_map.items():
        listed[shard].add(name)
    present = {path.name for path in folder.iterdir() if layout.numbered.fullmatch(path.name)}
    _refuse("are listed in the index and not there", (s for s in listed if not (folder / s).exists()), folder, layout)
    _refuse("are there and not listed in the index", present - set(listed), folder, layout)
    paths = {shard: resolve_inside(folder, shard, error=CheckpointError) for shard in sorted(listed)}
    tensors: dict[str, Tensor] = {}
    for shard, path in paths.items():
        found = layout.read(path)
        _refuse(f"are missing from {shard}, where the index has them", listed[shard] - set(found), folder, layout)
        extra = {name for name in set(found) - listed[shard] if name in weight_map or not UNLISTED.fullmatch(name)}
        _refuse(f"are in {shard}, where the index does not have them", extra, folder, layout)
        tensors |= found
    return tensors


def _read_index(folder: Path, layout: _Format) -> dict[str, str]:
    path = resolve_inside(folder, layout.index, error=CheckpointError)
    data = read_limited(path, max_bytes=MAX_INDEX_BYTES, error=CheckpointError)
    weight_map = parse_members(data, path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or len(weight_map) > MAX_TENSORS:
        raise CheckpointError(f"must be an object of 1 to {MAX_TENSORS} names", path=path, field="weight_map")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not layout.shard.fullmatch(shard) or ".." in shard:
            raise CheckpointError(
                f"a shard must be the name of a file beside its index, got {str(shard)[:100]!r}", path=path, field=name
            )
    return weight_map


def _refuse(what: str, names: Iterable[str], folder: Path, layout: _Format) -> None:
    offenders = sorted(names)
    if offenders:
        shown = ", ".join(map(repr, offenders[:10])) + (", ..." if len(offenders) > 10 else "")
        raise CheckpointError(f"{len(offenders)} {what}: {shown}", path=folder / layout.index)
