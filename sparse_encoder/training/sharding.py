"""A model whose parameters are shared out among processes (FSDP): how that is asked for, done, and undone for files.

Every process keeps a part of each tensor and fetches the rest of a layer while it computes; names stay as they are.
Knows no trainer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

STRATEGIES = {"full_shard": True, "shard_grad_op": False}
"""Whether a layer's parameters are given back after its forward and fetched again for its backward."""
_LAYERS, _RESHARD, _VERSION = "transformer_layer_cls_to_wrap", "reshard_after_forward", "version"
_NAMES = (_LAYERS, _RESHARD, _VERSION)
_REFUSED = {
    "no_shard": "data parallelism is what a trainer does without fsdp",
    "hybrid_shard": "shards go over all processes",
    "hybrid_shard_zero2": "shards go over all processes",
    "offload": "parameters stay on the device; gradient_checkpointing saves memory too",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharding:
    """How a model is shared out.

    Raises:
        ValueError: If no layer class is named.
    """

    layers: tuple[str, ...] = ("Layer",)
    """Names of the classes of modules that are fetched one at a time, by default the layers of a transformer; the rest
    of the model is fetched for the whole of a forward."""
    reshard_after_forward: bool = True
    """Give a layer's parameters back after its forward. ``False`` keeps them until its backward: more memory, less
    communication."""

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.layers or not all(self.layers):
            raise ValueError(f"fsdp needs names of layer classes, got {self.layers!r}")


def read_sharding(fsdp: str | bool | Sequence[str] | None, config: Mapping[str, Any]) -> Sharding | None:
    """Read the arguments ``fsdp`` and ``fsdp_config``; without the first, what ``accelerate launch --use_fsdp`` says.

    Args:
        fsdp: True, or words: ``full_shard`` or ``shard_grad_op``, and ``auto_wrap``, which is always done.
        config: ``transformer_layer_cls_to_wrap``, ``reshard_after_forward`` and ``version``, which is 2; the names may
            begin with ``fsdp_``.

    Returns:
        None if the model is not to be shared out.

    Raises:
        ValueError: If a value is unknown or not supported.
    """
    if not fsdp:
        if config:
            raise ValueError(f"fsdp_config={dict(config)!r} needs fsdp='full_shard'")
        return _from_launcher()
    words = ["full_shard"] if fsdp is True else fsdp.split() if isinstance(fsdp, str) else list(fsdp)
    chosen = [word for word in words if word != "auto_wrap"]
    for word in chosen:
        if word in _REFUSED:
            raise ValueError(f"fsdp={word!r} is not supported: {_REFUSED[word]}")
    if len(chosen) != 1 or chosen[0] not in STRATEGIES:
        raise ValueError(f"fsdp must be one of {sorted(STRATEGIES)}, perhaps with 'auto_wrap', got {fsdp!r}")
    named = {name.removeprefix("fsdp_"): value for name, value in config.items()}
    if unknown := sorted(set(named) - set(_NAMES)):
        raise ValueError(f"unknown {unknown} in fsdp_config; there are {sorted(_NAMES)}")
    if named.get(_VERSION, 2) not in (2, "2"):
        raise ValueError(f"version must be 2 in fsdp_config, got {named[_VERSION]!r}")
    reshard = named.get(_RESHARD, STRATEGIES[chosen[0]])
    if not isinstance(reshard, bool):
        raise ValueError(f"reshard_after_forward must be true or false in fsdp_config, got {reshard!r}")
    return Sharding(layers=_layer_names(named.get(_LAYERS)), reshard_after_forward=reshard)


def _layer_names(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return names of classes, perhaps given as one string with commas."""
    if value is None:
        return ("Layer",)
    return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else tuple(value)


def _from_launcher() -> Sharding | None:
    """Read what ``accelerate launch --use_fsdp`` has left in the environment."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return None
    from accelerate import FullyShardedDataParallelPlugin

    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise ValueError(f"fsdp_version must be 2, got {version}: give --fsdp_version 2 to accelerate launch")
    plugin = FullyShardedDataParallelPlugin()
    if plugin.activation_checkpointing:
        raise ValueError("fsdp_activation_checkpointing is not supported; take the argument gradient_checkpointing")
    if os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true":
        raise ValueError(f"fsdp_offload_params is not supported: {_REFUSED['offload']}")
    policy = os.environ.get("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP")
    if policy.upper() == "SIZE_BASED_WRAP":
        raise ValueError("fsdp_auto_wrap_policy SIZE_BASED_WRAP is not supported; layers are wrapped by their class")
    names = os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP")
    return Sharding(layers=_layer_names(names), reshard_after_forward=bool(plugin.reshard_after_forward))


def shard(model: nn.Module, sharding: Sharding, device: torch.device, num_processes: int) -> None:
    """Share out a model's parameters among all processes, in place; all must call this, with the same weights.

    Args:
        model: On the device. An optimizer must be made afterwards.
        sharding: How.
        device: Of this process.
        num_processes: How many there are.

    Raises:
        ValueError: If no module has one of the layer classes that were named, or a parameter is a scalar.
    """
    if scalars := [name for name, each in model.named_parameters() if each.dim() == 0]:
        raise ValueError(f"fsdp cannot share out scalars, and {scalars} are; give them the shape (1,)")
    layers = [each for each in model.modules() if type(each).__name__ in sharding.layers]
    if not layers and sharding.layers != Sharding().layers:
        classes = sorted({type(each).__name__ for each in model.modules()})
        raise ValueError(f"the model has no {list(sharding.layers)} for fsdp to share out; it has {classes}")
    mesh = init_device_mesh(device.type, (num_processes,))
    for module in (*layers, model):
        fully_shard(module, mesh=mesh, reshard_after_forward=sharding.reshard_after_forward)


def is_sharded(model: nn.Module) -> bool:
    """Return whether a model is shared out."""
    return isinstance(model, FSDPModule)


def class_name(module: nn.Module) -> str:
    """Return the name of a module's class, as it was before the module was shared out."""
    kind = type(module)
    return (kind.__bases__[-1] if isinstance(module, FSDPModule) else kind).__name__


def give_back(model: nn.Module) -> None:
    """Let a model forget the parts of other processes that it has fetched; a forward without a backward keeps some."""
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


@contextmanager
def whole(model: nn.Module, *, keep: bool) -> Iterator[None]:
    """Put the whole of each tensor in the place of its part for a while, on the CPU, to be written to files.

    All processes must enter; where nothing is shared out, or within itself, it does nothing.

    Args:
        model: Perhaps shared out; it cannot compute meanwhile.
        keep: Whether this process needs the tensors; in others the parts stay where they are.
    """
    give_back(model)
    places = [
        (module, name, each)
        for module in model.modules()
        for name, each in module._parameters.items()
        if each is not None and isinstance(each, DTensor)
    ]
    fetched: dict[int, nn.Parameter] = {}
    for _, _, part in places:
        if id(part) not in fetched:  # a tied one is fetched once
            full = _fetched(part.detach())
            fetched[id(part)] = nn.Parameter(full.cpu(), requires_grad=part.requires_grad) if keep else part
    try:
        for module, name, part in places:
            module._parameters[name] = fetched[id(part)]
        yield
    finally:
        for module, name, part in places:
            module._parameters[name] = part


def _fetched(part: Tensor) -> Tensor:
    """Return the whole of a tensor of which each process has a part; all must call this."""
    return part.full_tensor() if isinstance(part, DTensor) else part


def load_whole(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a model, perhaps shared out, the tensors of a whole one.

    Args:
        model: Not within :func:`whole`; what forwards have fetched is given back first.
        tensors: By name, the same in all processes.

    Raises:
        RuntimeError: If names or shapes are others.
    """
    give_back(model)
    own = model.state_dict()
    model.load_state_dict({name: shared_out(each, own.get(name)) for name, each in tensors.items()})


def shared_out(tensor: Tensor, like: Tensor | None) -> Tensor:
    """Return this process's part of a tensor, shared out like another one by the first process; all must call this."""
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def whole_state(optimizer: Optimizer, *, keep: bool) -> dict[str, Any]:  # torch's: numbers, tensors, nested
    """Return an optimizer's state with whole tensors; all processes must call this.

    Args:
        optimizer: Perhaps of a model that is shared out.
        keep: Whether this process needs the tensors; others get a state without them.
    """
    state = optimizer.state_dict()
    if not any(isinstance(each, DTensor) for values in state["state"].values() for each in values.values()):
        return state
    tensors: dict[int, dict[str, Any]] = {}  # as above
    for index, values in state["state"].items():
        for name, value in values.items():
            each = _fetched(value).cpu() if isinstance(value, DTensor) else value
            if keep:
                tensors.setdefault(index, {})[name] = each
    return {**state, "state": tensors}


def shared_out_state(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:  # as above
    """Undo :func:`whole_state`: share out each tensor that has the shape of its parameter like this."""
    order = [each for group in optimizer.param_groups for each in group["params"]]
    parts = {
        index: {
            name: shared_out(value, order[index]) if isinstance(value, Tensor) else value
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    return {**state, "state": parts}


def split_by_kind(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:  # options of many types
    """Split groups of parameters into those that are shared out and those that are not, which no kernel mixes."""
    split = []
    for group in groups:
        for kind in (True, False):
            parameters = [each for each in group["params"] if isinstance(each, DTensor) is kind]
            if parameters:
                split.append({**group, "params": parameters})
    return split
