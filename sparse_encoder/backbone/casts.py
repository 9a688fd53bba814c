"""Casts of named tensors, nested or not, to another floating type. Knows nothing of models.

A tree is a mapping from names to tensors or to further trees; a tensor's key path is its names joined by dots.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Tree = Mapping[str, Any]  # Any: tensors, or trees again
Mask = Mapping[str, Any] | Callable[[str], bool]
_MOST_NAMES = 10


def to_bf16(params: Tree, mask: Mask | None = None) -> dict[str, Any]:
    """Cast floating tensors to bfloat16; arguments, result and errors as :func:`cast_tree`."""
    return cast_tree(params, torch.bfloat16, mask)


def to_fp16(params: Tree, mask: Mask | None = None) -> dict[str, Any]:
    """Cast floating tensors to float16; values beyond 65,504 become infinite, with a warning. As :func:`cast_tree`."""
    return cast_tree(params, torch.float16, mask)


def to_fp32(params: Tree, mask: Mask | None = None) -> dict[str, Any]:
    """Cast floating tensors to float32; arguments, result and errors as :func:`cast_tree`."""
    return cast_tree(params, torch.float32, mask)


def cast_tree(params: Tree, dtype: torch.dtype, mask: Mask | None = None) -> dict[str, Any]:
    """Cast the floating tensors of a tree.

    Args:
        params: A state dict, perhaps nested. It stays as it is.
        dtype: A floating type.
        mask: What is cast: true and false in a tree of the same names, or a function of the key path. ``None`` casts
            all. Entries are matched by their key paths, whatever the order.

    Returns:
        A new tree in the order of the old. Tensors that are one memory under two names stay one; a tensor that is
        skipped, is not floating or has the type already is the old tensor itself.

    Raises:
        KeyError: If the mask lacks a name of the tree, or has one that the tree lacks.
        TypeError: If a leaf is no tensor, or one of the mask's no boolean.
        ValueError: If the mask says yes and no to two names of one tensor.
    """
    leaves = dict(_leaves(params))
    chosen = _chosen(leaves, mask)
    _check_tied(leaves, chosen)
    made: dict[tuple[object, ...], Tensor] = {}
    overflown = []
    for path, tensor in leaves.items():
        place = _place(tensor)
        if chosen[path] and place not in made and tensor.is_floating_point() and tensor.dtype != dtype:
            made[place] = tensor.detach().to(dtype)
            if _overflows(tensor, made[place]):
                overflown.append(path)
    if overflown:
        shown = ", ".join(overflown[:_MOST_NAMES]) + (" and others" if len(overflown) > _MOST_NAMES else "")
        largest = torch.finfo(dtype).max
        warnings.warn(f"values beyond {largest:.6g} became infinite as {dtype}, in {shown}", UserWarning, stacklevel=3)
    return _rebuilt(params, lambda path, tensor: made.get(_place(tensor), tensor) if chosen[path] else tensor)


def _leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield key paths and tensors."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        else:
            raise TypeError(f"{prefix}{name} must be a tensor or a mapping, got {type(value).__name__}")


def _flags(mask: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield key paths and what the mask says."""
    for name, value in mask.items():
        if isinstance(value, Mapping):
            yield from _flags(value, f"{prefix}{name}.")
        elif isinstance(value, bool):
            yield f"{prefix}{name}", value
        else:
            raise TypeError(f"the mask must hold true or false, got {value!r:.80} for {prefix}{name}")


def _chosen(leaves: Mapping[str, Tensor], mask: Mask | None) -> dict[str, bool]:
    """Return for each key path whether it is cast."""
    if mask is None:
        return dict.fromkeys(leaves, True)
    if callable(mask):
        return {path: bool(mask(path)) for path in leaves}
    flags = dict(_flags(mask))
    for missing, where in ((leaves.keys() - flags.keys(), "the mask"), (flags.keys() - leaves.keys(), "the tree")):
        if missing:
            raise KeyError(f"{where} lacks {sorted(missing)[:_MOST_NAMES]}; mask and tree must have the same names")
    return flags


def _check_tied(leaves: Mapping[str, Tensor], chosen: Mapping[str, bool]) -> None:
    owners: dict[tuple[object, ...], str] = {}
    for path, tensor in leaves.items():
        owner = owners.setdefault(_place(tensor), path)
        if chosen[owner] != chosen[path] and tensor.numel():
            raise ValueError(f"{owner} and {path} are one tensor: the mask must say the same of both")


def _place(tensor: Tensor) -> tuple[object, ...]:
    """Return what two names of one memory have in common; a tensor without memory is only itself."""
    if tensor.is_meta or not tensor.numel():
        return (id(tensor),)
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


def _overflows(before: Tensor, after: Tensor) -> bool:
    narrower = torch.finfo(after.dtype).max < torch.finfo(before.dtype).max
    return narrower and not before.is_meta and bool((after.isinf() & before.isfinite()).any())


def _rebuilt(tree: Tree, leaf: Callable[[str, Tensor], Tensor], prefix: str = "") -> dict[str, Any]:
    return {
        name: _rebuilt(value, leaf, f"{prefix}{name}.")
        if isinstance(value, Mapping)
        else leaf(f"{prefix}{name}", value)
        for name, value in tree.items()
    }
