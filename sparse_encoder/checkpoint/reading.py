"""The weights of a folder as named tensors, whichever of four layouts they are stored in.

What is there is described first, from headers alone, and read one tensor at a time when it is wanted. Knows no model:
which names are wanted is for the caller to say.
"""

from __future__ import annotations

import re
import shlex
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from torch import Tensor

from sparse_encoder.checkpoint.errors import CheckpointError
from sparse_encoder.checkpoint.paths import read_limited, resolve_inside
from sparse_encoder.checkpoint.safetensors_file import (
    MAX_TENSORS,
    TensorInfo,
    describe_safetensors,
    parse_members,
    stream_safetensors,
)
from sparse_encoder.checkpoint.torch_file import read_torch_file
from sparse_encoder.checkpoint.weight_names import MAX_INDEX_BYTES, WeightNames, set_of

UNLISTED = re.compile(r"(?:.*\.)?(?:position_ids|pooler\..+)")
"""Names a shard may have that its index does not list: leftovers that every reader skips."""
_SHARD = {ending: re.compile(rf"[A-Za-z0-9._-]+\.{ending}") for ending in ("safetensors", "bin")}
"""What an index may call a shard."""
_OTHER_LIBRARIES = {".h5": "TensorFlow", ".ckpt": "TensorFlow", ".index": "TensorFlow", ".msgpack": "Flax"}


class WeightFiles:
    """The weights of a folder: described, checked against their index, and not yet read.

    Args:
        folder: Where they are.
        names: What they are called.
        shards: What is in each file.
        stated_dtype: What the index says their type is.
        held: The tensors, if describing them took reading them: a pickle in one piece.
    """

    def __init__(
        self,
        folder: Path,
        names: WeightNames,
        shards: dict[str, dict[str, TensorInfo]],
        *,
        stated_dtype: str | None = None,
        held: dict[str, Tensor] | None = None,
    ) -> None:
        self.folder = folder
        self.names = names
        self.shards = shards
        self.stated_dtype = stated_dtype
        self._held = held
        self.tensors = {name: info for entries in shards.values() for name, info in entries.items()}
        """Type and shape of every tensor by its name."""
        self._place = {name: shard for shard, entries in shards.items() for name in entries}

    def stream(self, names: Collection[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Read tensors file by file; of safetensors only one is in memory at a time, of pickles one file.

        Args:
            names: Which tensors; None for all.

        Yields:
            Names and tensors on the CPU, all finite.

        Raises:
            CheckpointError: If a tensor is damaged, or no longer what it was when it was described.
        """
        for shard, entries in self.shards.items():
            wanted = {name for name in entries if self._place[name] == shard and (names is None or name in names)}
            if not wanted:
                continue
            path = resolve_inside(self.folder, shard, error=CheckpointError)
            for name, tensor in self._read(path, frozenset(wanted)):
                if (tensor.dtype, tuple(tensor.shape)) != self.tensors[name]:
                    raise CheckpointError("was replaced while it was read", path=path, field=name)
                wanted.discard(name)
                yield name, tensor
            if wanted:
                raise CheckpointError(f"was replaced while it was read: {sorted(wanted)[:10]} are gone", path=path)

    def _read(self, path: Path, wanted: frozenset[str]) -> Iterator[tuple[str, Tensor]]:
        if self.names.ending == "bin":
            found = self._held if self._held is not None else read_torch_file(path)
            return ((name, tensor) for name, tensor in found.items() if name in wanted)
        return stream_safetensors(path, wanted)


def open_weights(folder: Path, *, use_safetensors: bool | None = None, variant: str | None = None) -> WeightFiles:
    """Look at the weights of a folder.

    The first of these that is there counts, and the others are not opened: ``model.safetensors``,
    ``model.safetensors.index.json`` with its shards, ``pytorch_model.bin``, ``pytorch_model.bin.index.json`` with its
    shards. The last two are pickles; they are opened by ``torch.load(weights_only=True)``, with one warning.

    Args:
        folder: The folder.
        use_safetensors: True refuses the pickles, False reads only them.
        variant: Reads ``model.VARIANT.safetensors`` and its like instead, and nothing else.

    Raises:
        FileNotFoundError: If the folder is not there.
        NotADirectoryError: If it is a file.
        ValueError: If ``variant`` cannot be part of the name of a file.
        CheckpointError: If there are no weights, or they are damaged, hostile or at odds with their index.
    """
    folder = Path(folder)
    if not folder.is_dir():
        missing = NotADirectoryError if folder.exists() else FileNotFoundError
        raise missing(f"{folder} is not a folder with weights")
    endings = {None: ("safetensors", "bin"), True: ("safetensors",), False: ("bin",)}[use_safetensors]
    sets = [WeightNames(ending, variant) for ending in endings]
    for names in sets:
        for name in (names.single, names.index):
            if _is_there(folder, name):
                if names.ending == "bin":
                    _warn(folder)
                return _open_single(folder, names) if name == names.single else open_sharded(folder, names)
    raise _no_weights(folder, [name for names in sets for name in (names.single, names.index)], variant)


def read_tensors(folder: Path, *, use_safetensors: bool | None = None) -> dict[str, Tensor]:
    """Read all weights of a folder, as :func:`open_weights` finds them.

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
    return dict(open_weights(folder, use_safetensors=use_safetensors).stream())


def _is_there(folder: Path, name: str) -> bool:
    return (folder / name).exists() or (folder / name).is_symlink()


def _no_weights(folder: Path, names: list[str], variant: str | None) -> CheckpointError:
    endings = (".bin", ".safetensors", *_OTHER_LIBRARIES, ".pt", ".pth", ".onnx", ".gguf")
    others = sorted(path.name for path in folder.iterdir() if path.suffix in endings)
    sets = (WeightNames("safetensors"), WeightNames("bin"))
    plain = [name for each in sets for name in (each.single, each.index) if _is_there(folder, name)]
    hint = f"There are {others[:10]}, which are not read" if others else None
    if variant is not None:
        hint = f"Leave out variant={variant!r} to read {plain[0] if plain else 'the plain weights, if there are any'}"
    elif libraries := sorted({_OTHER_LIBRARIES.get(Path(name).suffix, "") for name in others} - {""}):
        hint = f"{hint}: they are of {' and '.join(libraries)}; let transformers 4 save them as safetensors"
    return CheckpointError(f"has no weights; looked for {names}", path=folder, hint=hint)


def _warn(folder: Path) -> None:
    warnings.warn(
        f"{folder} has its weights in a pickle. It is read without running any code in it; to convert it, run\n"
        f"  sparse-encoder convert {shlex.quote(str(folder))}",
        UserWarning,
        stacklevel=3,
    )


def _describe(path: Path, names: WeightNames) -> dict[str, TensorInfo]:
    if names.ending == "safetensors":
        return describe_safetensors(path)
    return _infos(read_torch_file(path))


def _infos(tensors: dict[str, Tensor]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def _open_single(folder: Path, names: WeightNames) -> WeightFiles:
    path = resolve_inside(folder, names.single, error=CheckpointError)
    if names.ending == "bin":
        held = read_torch_file(path)
        return WeightFiles(folder, names, {names.single: _infos(held)}, held=held)
    return WeightFiles(folder, names, {names.single: describe_safetensors(path)})


def open_sharded(folder: Path, names: WeightNames) -> WeightFiles:
    """Look at the shards an index lists, which together must have exactly the tensors it lists.

    Args:
        folder: The folder.
        names: Whose index.

    Raises:
        CheckpointError: If the index or a shard is damaged or hostile, or they are at odds.
    """
    weight_map, stated_dtype = _read_index(folder, names)
    listed: dict[str, set[str]] = defaultdict(set)
    for name, shard in weight_map.items():
        listed[shard].add(name)
    singles = (names.single, names.index)
    present = {path.name for path in folder.iterdir() if path.name not in singles and set_of(path.name) == names}
    _refuse("are listed in the index and not there", (s for s in listed if not _exists(folder, s)), folder, names)
    _refuse("are there and not listed in the index", present - set(listed), folder, names)
    paths = {shard: resolve_inside(folder, shard, error=CheckpointError) for shard in sorted(listed)}
    shards: dict[str, dict[str, TensorInfo]] = {}
    for shard, path in paths.items():
        found = _describe(path, names)
        _refuse(f"are missing from {shard}, where the index has them", listed[shard] - set(found), folder, names)
        extra = {name for name in set(found) - listed[shard] if name in weight_map or not UNLISTED.fullmatch(name)}
        _refuse(f"are in {shard}, where the index does not have them", extra, folder, names)
        shards[shard] = found
    return WeightFiles(folder, names, shards, stated_dtype=stated_dtype)


def _exists(folder: Path, name: str) -> bool:
    return (folder / name).exists()


def _read_index(folder: Path, names: WeightNames) -> tuple[dict[str, str], str | None]:
    path = resolve_inside(folder, names.index, error=CheckpointError)
    index = parse_members(read_limited(path, max_bytes=MAX_INDEX_BYTES, error=CheckpointError), path)
    weight_map, metadata = index.get("weight_map"), index.get("metadata")
    if not isinstance(weight_map, dict) or not weight_map or len(weight_map) > MAX_TENSORS:
        raise CheckpointError(f"must be an object of 1 to {MAX_TENSORS} names", path=path, field="weight_map")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not _SHARD[names.ending].fullmatch(shard) or ".." in shard:
            raise CheckpointError(
                f"a shard must be the name of a file beside its index, got {str(shard)[:100]!r}", path=path, field=name
            )
    stated = metadata.get("dtype") if isinstance(metadata, dict) else None
    return weight_map, stated if isinstance(stated, str) else None


def _refuse(what: str, which: Iterable[str], folder: Path, names: WeightNames) -> None:
    offenders = sorted(which)
    if offenders:
        shown = ", ".join(map(repr, offenders[:10])) + (", ..." if len(offenders) > 10 else "")
        raise CheckpointError(f"{len(offenders)} {what}: {shown}", path=folder / names.index)
