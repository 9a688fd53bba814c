"""Tensors into their places: each is read once, cast, moved and owned by the model before the next is read."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.dtypes import Dtypes
from sparse_encoder.backbone.loading.devices import Placement
from sparse_encoder.backbone.loading.matching import Match, Ties
from sparse_encoder.backbone.loading.options import DISK
from sparse_encoder.backbone.loading.sources import PeekedSource
from sparse_encoder.backbone.random_weights import RandomWeights
from sparse_encoder.checkpoint import CheckpointError


def fill(
    model: nn.Module, found: Match, source: PeekedSource, placement: Placement, dtypes: Dtypes, ties: Ties
) -> None:
    """Give the parameters that have a tensor their values.

    Args:
        model: On the meta device.
        found: Which parameter gets which tensor.
        source: Of the tensors.
        placement: Where they go.
        dtypes: What they become.
        ties: Parameters that are others.
    """
    names: dict[str, list[str]] = {}
    for name, stored in found.places.items():
        names.setdefault(stored, []).append(name)
    memory: set[int] = set()
    for stored, tensor in source.stream(frozenset(names)):
        for name in names[stored]:
            device = placement.device_of(name)
            if device == DISK:
                cast = tensor.to(dtypes.of(name))
                _offload(model, name, cast, placement, ties)
                continue
            placed = tensor.to(device=device, dtype=dtypes.of(name))
            if placed.data_ptr() in memory or placed.untyped_storage().nbytes() != placed.nbytes:
                placed = placed.clone()  # a pickle may share memory between tensors, or keep more than it shows
            memory.add(placed.data_ptr())
            put(model, name, placed)
        del tensor


def start_anew(model: RandomWeights, found: Match, placement: Placement, dtypes: Dtypes, ties: Ties) -> None:
    """Give the parameters that have no tensor new values, each by the rule of the innermost model around it.

    Args:
        model: All its other parameters have values.
        found: Which these are.
        placement: Where they go.
        dtypes: What they have.
        ties: Parameters that are others.
    """
    names = [*found.missing, *found.mismatched, *found.zeros]
    if not names:
        return
    for name in names:
        device = placement.device_of(name)
        shape = _tensor(model, name).shape
        put(model, name, torch.zeros(shape, dtype=dtypes.of(name), device="cpu" if device == DISK else device))
    owners = {name.rpartition(".")[0] for name in names if name not in found.zeros}
    for path in sorted(owners):
        module = model.get_submodule(path)
        kept = {
            own: each.detach().clone() for own, each in module.named_parameters(path, recurse=False) if own not in names
        }
        with torch.no_grad():
            _model_around(model, path)._init_weights(module)
            for own, values in kept.items():
                model.get_parameter(own).copy_(values)
    for name in names:
        if placement.device_of(name) == DISK:
            _offload(model, name, model.get_parameter(name).detach(), placement, ties)


def _tensor(model: nn.Module, name: str) -> Tensor:
    """Return a parameter or a buffer."""
    path, _, own = name.rpartition(".")
    found = getattr(model.get_submodule(path), own)
    assert isinstance(found, Tensor)
    return found


def _model_around(model: RandomWeights, path: str) -> RandomWeights:
    """Return the innermost model that a module lies in."""
    parts = path.split(".") if path else []
    around = [model.get_submodule(".".join(parts[:end])) for end in range(len(parts) + 1)]
    return next(each for each in reversed(around) if isinstance(each, RandomWeights))


def put(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Make a tensor a parameter or buffer of a model, as trainable as the one it replaces."""
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    old = module._parameters.get(own)
    if old is None:
        module._buffers[own] = tensor
    else:
        module._parameters[own] = nn.Parameter(tensor, requires_grad=old.requires_grad)


def _offload(model: nn.Module, name: str, tensor: Tensor, placement: Placement, ties: Ties) -> None:
    """Write values to the disk under all names of a parameter, of which only the shape and dtype stay."""
    for each in (name, *(target for target, origin in ties.items() if origin == name)):
        placement.offload(each, tensor)
    put(model, name, torch.empty(model.get_parameter(name).shape, dtype=tensor.dtype, device="meta"))


def check_filled(model: nn.Module, placement: Placement) -> None:
    """Refuse a model that lacks values, also in buffers that are not saved.

    Raises:
        CheckpointError: If a parameter or buffer has none, and none on the disk.
    """
    tensors = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    if empty := [name for name, each in tensors if each.is_meta and placement.device_of(name) != DISK]:
        raise CheckpointError(f"no values for {empty[:10]}, which the weights do not have and the config does not say")
