"""Shards into a model that is there: any module, one tensor in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.loading.matching import as_ours, settle_bias, settle_words
from sparse_encoder.backbone.loading.placing import put
from sparse_encoder.backbone.loading.sources import PeekedSource, TensorSource
from sparse_encoder.backbone.pretrained import PretrainedModel
from sparse_encoder.backbone.weights import counted, listed, names_of, to_our_names
from sparse_encoder.checkpoint import CheckpointError, KeyTable, WeightFiles
from sparse_encoder.checkpoint.reading import open_sharded
from sparse_encoder.checkpoint.weight_names import WeightNames


class ShardedLoad(NamedTuple):
    """What did not match."""

    missing_keys: list[str]
    """Parameters and buffers of the model that the shards do not have; sorted."""
    unexpected_keys: list[str]
    """Tensors of the shards that the model does not have; sorted."""


class _Names(NamedTuple):
    """Names in the files against those of the model."""

    own: dict[str, str]
    """Names in the files to those of the model."""
    unexpected: list[str]
    table: KeyTable | None
    """Names the model's own as its files do; None for a module that has no names but its own."""

    def in_files(self, own: str) -> str:
        return own if self.table is None else self.table.theirs(own)


def load_sharded_checkpoint(
    model: nn.Module, folder: str | Path, strict: bool = True, prefer_safe: bool = True
) -> ShardedLoad:
    """Give a model the weights of a folder with an index.

    The names are the model's own, and for a model of this library those of its family's files. The values are copied:
    dtype, device and identity of the parameters stay. Parameters on the meta device are replaced. What the shards have
    is taken from the shards, not from the index, and both must agree. Parameters that are one count as present when
    one of their names is.

    Args:
        model: Any module.
        folder: Holds ``model.safetensors.index.json`` or ``pytorch_model.bin.index.json``, and the shards it lists.
        strict: Refuse missing and unexpected names, before the model is touched.
        prefer_safe: Read safetensors where both are there; False prefers pickles, which are opened by
            ``torch.load(weights_only=True)``.

    Returns:
        The names that did not match; of a strict load, none.

    Raises:
        FileNotFoundError: If there is no such folder.
        TypeError: If it is no module.
        ValueError: If there is neither index, accelerate keeps values of the model elsewhere, or it has adapters.
        CheckpointError: If the files are damaged, hostile or at odds with their index, a tensor has another shape, or
            names do not match in a strict load. The model is untouched, unless it is the values that are damaged, not
            finite, or two for one parameter.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, PretrainedModel) and model.peft_config:
        raise ValueError(
            f"the model has adapters {sorted(model.peft_config)}, which these files do not hold: load the weights"
            " first, then the adapters with load_adapter(folder)"
        )
    _refuse_offloaded(model)
    files = _open(Path(folder), prefer_safe=prefer_safe)
    oriented = _oriented(model, files)
    source = PeekedSource(oriented)
    wanted = {name: each for name, each in model.state_dict(keep_vars=True).items() if isinstance(each, Tensor)}
    names = _matched(model, files, source, wanted)
    _check_shapes(oriented, names, wanted, files.folder)
    present = {id(wanted[own]) for own in names.own.values()}
    missing = sorted(names.in_files(name) for name, tensor in wanted.items() if id(tensor) not in present)
    unexpected = sorted(names.unexpected)
    problems = [
        f"{counted(which, what)}: {listed(which)}"
        for which, what in ((missing, "missing tensor"), (unexpected, "unexpected tensor"))
        if which
    ]
    if strict and problems:
        raise CheckpointError(
            f"the weights do not fit {type(model).__name__}; {'; '.join(problems)}",
            path=files.folder,
            hint="strict=False returns these names instead",
        )
    shared, filled = _names_by_tensor(wanted), dict[int, tuple[str, Tensor]]()
    with torch.no_grad():
        for name, tensor in source.stream(frozenset(names.own)):
            old = wanted[names.own[name]]
            cast = tensor.to(device=None if old.is_meta else old.device, dtype=old.dtype)
            first, values = filled.setdefault(id(old), (name, cast if old.is_meta else old))
            if first == name:
                _apply(model, shared[id(old)], old, cast)
            elif not torch.equal(values, cast):
                raise CheckpointError(f"{first!r} and {name!r} are one parameter of the model and differ", path=folder)
    return ShardedLoad(missing, unexpected)


def _refuse_offloaded(model: nn.Module) -> None:
    """Refuse a model that fetches its values when it is called: what it is given here would not be what it uses."""
    if any(hasattr(module, "_hf_hook") for module in model.modules()):
        held = [name for name, tensor in model.state_dict(keep_vars=True).items() if getattr(tensor, "is_meta", False)]
        if held:
            raise ValueError(
                f"values are not in the model but offloaded by accelerate: {listed(held)}; load the weights with"
                " from_pretrained(folder, device_map=...) instead"
            )


def _open(folder: Path, *, prefer_safe: bool) -> WeightFiles:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder with weights")
    safe, pickles = WeightNames("safetensors"), WeightNames("bin")
    for names in (safe, pickles) if prefer_safe else (pickles, safe):
        path = folder / names.index
        if path.exists() or path.is_symlink():
            return open_sharded(folder, names)
    raise ValueError(f"{folder} has neither {safe.index} nor {pickles.index}")


def _matched(model: nn.Module, files: WeightFiles, source: PeekedSource, wanted: Mapping[str, Tensor]) -> _Names:
    """Find the model's own name of every tensor."""
    if not isinstance(model, PretrainedModel):
        own = {name: name for name in files.tensors if name in wanted}
        return _Names(own, [name for name in files.tensors if name not in wanted], None)
    known = names_of(model.family, model.config, model.head_rows(model.family))
    naming = to_our_names(files.tensors, known, path=files.folder)
    settle_bias(naming, source, tied=model.config.tie_word_embeddings, path=files.folder)
    settle_words(naming, source, files.folder)
    found = {naming.stored[origin]: name for name, origin in naming.origins.items() if name in wanted}
    without = [origin for name, origin in naming.origins.items() if name not in wanted]
    return _Names(found, [*naming.unexpected, *without], known.own)


def _oriented(model: nn.Module, files: WeightFiles) -> TensorSource:
    """Return the files with their matrices as those of the model lie."""
    if not isinstance(model, PretrainedModel):
        return files
    return as_ours(files, names_of(model.family, model.config, model.head_rows(model.family)), path=files.folder)


def _check_shapes(files: TensorSource, names: _Names, wanted: Mapping[str, Tensor], folder: Path) -> None:
    shapes = [
        f"{name} is {files.tensors[name].shape}, the model has {tuple(wanted[own].shape)}"
        for name, own in names.own.items()
        if files.tensors[name].shape != tuple(wanted[own].shape)
    ]
    if shapes:
        raise CheckpointError(f"{counted(shapes, 'tensor')} of another shape: {listed(shapes)}", path=folder)


def _names_by_tensor(wanted: Mapping[str, Tensor]) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for name, tensor in wanted.items():
        names.setdefault(id(tensor), []).append(name)
    return names


def _apply(model: nn.Module, names: list[str], old: Tensor, tensor: Tensor) -> None:
    """Copy values, or put a tensor in the place of one that has none, under each of its names."""
    if not old.is_meta:
        old.copy_(tensor)
        return
    put(model, names[0], tensor)
    path, _, own = names[0].rpartition(".")
    first = getattr(model.get_submodule(path), own)
    for name in names[1:]:
        path, _, own = name.rpartition(".")
        setattr(model.get_submodule(path), own, first)
