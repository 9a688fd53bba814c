"""The weights of a module that has no way of its own to be saved; knows nothing of what it computes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from sparse_encoder.checkpoint import write_tensors


def write_module(folder: Path, module: nn.Module) -> None:
    """Write the parameters and buffers of a module as ``model.safetensors``, each under its first name.

    Args:
        folder: Where to; made if it does not exist.
        module: Perhaps with parameters that have several names.
    """
    first = first_names(module)
    tensors = {name: each for name, each in module.state_dict().items() if first.get(name, name) == name}
    write_tensors(folder, tensors)


def with_other_names(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add to the tensors of a saved module the other names of parameters of which one name was saved.

    Args:
        module: Which parameters have several names.
        tensors: By name; none of them is changed.
    """
    first = first_names(module)
    by_first = {first.get(name, name): each for name, each in tensors.items()}
    missing = {name: by_first[first[name]] for name in module.state_dict() if by_first.keys() & {first.get(name)}}
    return {**missing, **tensors}


def first_names(module: nn.Module) -> dict[str, str]:
    """Return for every name of a parameter or buffer the first name that it has."""
    seen: dict[int, str] = {}
    pairs = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {name: seen.setdefault(id(each), name) for name, each in pairs}
