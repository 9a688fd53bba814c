"""The adapters of one model: which there are, which are active, and the parameters they have copies of.

An adapter's copies take the places of the base's own parameters while it is active. Both lie in a module of the model,
so that they move with it; it is there as long as any adapter has copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.adapters.config import LoraConfig
from sparse_encoder.backbone.adapters.head import LoraHead
from sparse_encoder.backbone.adapters.layer import LoraLinear, LowRank
from sparse_encoder.backbone.adapters.names import COPIES, is_adapters_own, pattern_value
from sparse_encoder.backbone.families.family import HEAD_WEIGHT, WORD_EMBEDDINGS
from sparse_encoder.backbone.heads import LinearHead

BASE = "@base"
"""Where the base's own parameters lie among the copies."""


@dataclass(slots=True)
class AdapterBook:
    """What is known of a model's adapters beside their numbers."""

    configs: dict[str, LoraConfig] = field(default_factory=dict)
    """By name, in the spelling of the family's files."""
    active: tuple[str, ...] = ()
    enabled: bool = True
    trained: tuple[str, ...] = ()
    """Parameters of the base that got a gradient before there were adapters."""


def lora_layers(model: nn.Module) -> dict[str, LowRank]:
    """Return the layers of a model that have adapters, its head among them, by our names."""
    return {name: part for name, part in model.named_modules() if isinstance(part, LowRank)}


def attach(
    model: nn.Module, name: str, *, config: LoraConfig, layers: Mapping[str, str], copied: Sequence[str]
) -> None:
    """Put an adapter on a model; it is not active yet, and the numbers of its layers are not set.

    Args:
        model: The model.
        name: Of the adapter.
        config: What it is.
        layers: The linear layers it stands on, our names to those in files.
        copied: Parameters it has copies of, by our names.
    """
    for ours, theirs in layers.items():
        layer = model.get_submodule(ours)
        if not isinstance(layer, LowRank):
            assert isinstance(layer, (nn.Linear, LinearHead))
            layer = LoraHead(layer) if isinstance(layer, LinearHead) else LoraLinear(layer)
            model.set_submodule(ours, layer)
        rank = pattern_value(config.rank_pattern, theirs, config.r)
        alpha = pattern_value(config.alpha_pattern, theirs, config.lora_alpha)
        layer.add(name, rank, scaling=config.scaling(rank, alpha), dropout=config.lora_dropout)
    if copied:
        _copy_parameters(model, name, copied=copied)


def _copy_parameters(model: nn.Module, name: str, *, copied: Sequence[str]) -> None:
    copies = copies_of(model)
    if copies is None:
        copies = {BASE: nn.ParameterDict()}
        model.add_module(COPIES, nn.ModuleDict(copies))
    own = nn.ParameterDict()
    for ours in copied:
        base = copies[BASE]
        if _key(ours) not in base:
            base[_key(ours)] = model.get_parameter(ours)
        own[_key(ours)] = nn.Parameter(base[_key(ours)].detach().clone())
    cast(nn.ModuleDict, model.get_submodule(COPIES))[name] = own


def copies_of(model: nn.Module) -> dict[str, nn.ParameterDict] | None:
    """Return the copies by adapter, the base's own among them; None if there are none."""
    module = model._modules.get(COPIES)
    return None if module is None else {name: cast(nn.ParameterDict, each) for name, each in module.named_children()}


def copies_by_name(model: nn.Module, adapter: str) -> dict[str, nn.Parameter]:
    """Return the copies of one adapter, or of :data:`BASE`, by our names of what they are copies of."""
    held = (copies_of(model) or {}).get(adapter)
    return {} if held is None else {_ours(key): parameter for key, parameter in held.items()}


def _key(ours: str) -> str:
    return ours.replace(".", ":")  # a module's children cannot have dots in their names


def _ours(key: str) -> str:
    return key.replace(":", ".")


def detach(model: nn.Module, name: str) -> None:
    """Take an adapter that is not active off a model; layers without any become plain again."""
    for ours, layer in lora_layers(model).items():
        if name in layer.lora_A:
            layer.remove(name)
            if not layer.lora_A:
                model.set_submodule(ours, layer.plain())
    if COPIES in model._modules:
        copies = cast(nn.ModuleDict, model.get_submodule(COPIES))
        if name in copies:
            del copies[name]
        if list(copies) == [BASE]:
            forget_copies(model)


def forget_copies(model: nn.Module) -> None:
    """Forget all copies, and the base's own that they are of; what is in its place stays there."""
    model._modules.pop(COPIES, None)


def activate(model: nn.Module, names: Sequence[str]) -> None:
    """Let some adapters act, and no other.

    Args:
        model: The model.
        names: Of the adapters.

    Raises:
        ValueError: If two of them have copies of one parameter.
    """
    places: dict[str, nn.Parameter] = {}
    for name in names:
        own = copies_by_name(model, name)
        if both := sorted(own.keys() & places.keys()):
            raise ValueError(f"adapters {list(names)} cannot be active together: two have copies of {both[:5]}")
        places |= own
    for ours, parameter in {**copies_by_name(model, BASE), **places}.items():
        module, _, leaf = ours.rpartition(".")
        setattr(model.get_submodule(module), leaf, parameter)
    for layer in lora_layers(model).values():
        layer.active = tuple(name for name in names if name in layer.lora_A)


def tie_base(model: nn.Module) -> None:
    """Make words and head of the base one parameter again, where adapters have copies of one of them or both.

    What moves or converts parameters may give each place its own. The copies stay as they are.
    """
    copies = copies_of(model)
    assert copies is not None  # or there would be nothing to do here
    own = copies[BASE]
    words = own[_key(WORD_EMBEDDINGS)] if _key(WORD_EMBEDDINGS) in own else model.get_parameter(WORD_EMBEDDINGS)
    module, _, leaf = HEAD_WEIGHT.rpartition(".")
    head = model.get_submodule(module)
    if _key(HEAD_WEIGHT) not in own:
        setattr(head, leaf, words)
    elif own[_key(HEAD_WEIGHT)] is not words:
        if getattr(head, leaf) is own[_key(HEAD_WEIGHT)]:
            setattr(head, leaf, words)
        own[_key(HEAD_WEIGHT)] = words


def unmerge(model: nn.Module) -> None:
    """Give weights the bits back that they had before they took adapters in."""
    for layer in lora_layers(model).values():
        layer.unmerge()


def is_merged(model: nn.Module) -> bool:
    """Say whether any weight has taken adapters in."""
    return any(layer.is_merged for layer in lora_layers(model).values())


def refuse_merged(model: nn.Module, what: str) -> None:
    """Refuse what merged weights do not allow.

    Args:
        model: The model.
        what: That, in words.

    Raises:
        ValueError: If a weight has taken adapters in.
    """
    if is_merged(model):
        raise ValueError(f"{what}: the weights have taken adapters in; call unmerge_adapter() first")


def set_trainable(model: nn.Module, names: Sequence[str]) -> None:
    """Let gradients reach some adapters, and nothing else of a model."""
    model.requires_grad_(False)
    for layer in lora_layers(model).values():
        for name in names:
            if name in layer.lora_A:
                layer.lora_A[name].requires_grad_(True)
                layer.lora_B[name].requires_grad_(True)
    for name in names:
        for parameter in copies_by_name(model, name).values():
            parameter.requires_grad_(True)


def base_tensors(model: nn.Module, state_dict: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the tensors of the model below the adapters, as if there were none.

    Args:
        model: Perhaps with adapters that are active or merged.
        state_dict: Its tensors; by default as they are now.
    """
    state = model.state_dict() if state_dict is None else state_dict
    tensors = {name: each for name, each in state.items() if not is_adapters_own(name)}
    for ours in copies_by_name(model, BASE):
        if f"{COPIES}.{BASE}.{_key(ours)}" in state:
            tensors[ours] = state[f"{COPIES}.{BASE}.{_key(ours)}"]
    for ours, layer in lora_layers(model).items():
        if layer.is_merged:
            tensors[f"{ours}.weight"] = layer.base_weight
    return tensors


def adapter_tensors(model: nn.Module, name: str, state_dict: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the tensors of one adapter: ``layer.lora_A``, ``layer.lora_B``, and copies by our names.

    Args:
        model: The model.
        name: Of the adapter.
        state_dict: The model's tensors; by default as they are now.

    Raises:
        ValueError: If ``state_dict`` lacks one.
    """
    state = model.state_dict() if state_dict is None else state_dict
    places: dict[str, str] = {}
    for ours, layer in lora_layers(model).items():
        if name in layer.lora_A:
            places |= {f"{ours}.{part}": f"{ours}.{part}.{name}" for part in ("lora_A", "lora_B")}
    places |= {ours: f"{COPIES}.{name}.{_key(ours)}" for ours in copies_by_name(model, name)}
    if missing := [key for key in places.values() if key not in state]:
        raise ValueError(
            f"state_dict must have all tensors of the adapter {name!r} by the names of model.state_dict(), and lacks "
            f"{len(missing)}: {missing[:3]}"
        )
    return {ours: state[key] for ours, key in places.items()}


@torch.no_grad()
def fill(model: nn.Module, name: str, *, tensors: Mapping[str, Tensor]) -> None:
    """Give an adapter its numbers; names as :func:`adapter_tensors` has them, shapes as they are."""
    for ours, tensor in adapter_tensors(model, name).items():
        tensor.copy_(tensors[ours])


def state_of_saved(
    model: nn.Module, name: str, *, own: Mapping[str, Tensor], base: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return the tensors that a model has once one of its adapters is as it was saved; its other ones stay.

    Args:
        model: The model, its adapter active.
        name: Of that adapter.
        own: The saved adapter's tensors, as :func:`adapter_tensors` names them.
        base: The base that was saved with it; by default the model's own.
    """
    base, state = base_tensors(model) if base is None else base, dict(model.state_dict())
    for key in state:
        if key.startswith(f"{COPIES}.{BASE}."):
            state[key] = base[_ours(key.removeprefix(f"{COPIES}.{BASE}."))]
        elif not is_adapters_own(key):
            state[key] = own[key] if key in own else base[key]
    for key in adapter_tensors(model, name):
        is_copy = key.rpartition(".")[2] not in ("lora_A", "lora_B")
        state[f"{COPIES}.{name}.{_key(key)}" if is_copy else f"{key}.{name}"] = own[key]
    return state
