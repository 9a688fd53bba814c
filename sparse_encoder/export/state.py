"""A model while it is traced: evaluation mode, plain formulas, no hooks, no autocast; afterwards it is as it was.

Gradients are on meanwhile: without them the library cuts batches into parts by numbers of their shape, which would be
frozen into the graph.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from sparse_encoder.backbone.attention import Attention, eager_attention
from sparse_encoder.backbone.devices import device_of
from sparse_encoder.backbone.modes import evaluating

HOOKS = ("_forward_hooks", "_forward_pre_hooks")


@contextmanager
def traceable(model: nn.Module) -> Iterator[None]:
    """Bring a model into the state to trace it in; each thing that changes is put back, also after an error.

    Args:
        model: It and all modules in it.
    """
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(_without_hooks(model))
        stack.enter_context(_plain_attention(model))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(full_precision(model))
        yield


@contextmanager
def full_precision(model: nn.Module) -> Iterator[None]:
    """Turn off autocast, which a caller may have on: types in a graph are those of the weights."""
    with ExitStack() as stack:
        for kind in {"cpu", device_of(model).type} - {"meta"}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def _without_hooks(model: nn.Module) -> Iterator[None]:
    """Take away what others hang on forward passes: it may not be traceable, and is not to be in a graph."""
    hooks: list[tuple[nn.Module, str, OrderedDict[int, Any]]] = []  # Any: hooks of any form
    for module in model.modules():
        for name in HOOKS:
            held = getattr(module, name)
            if held:
                hooks.append((module, name, held))
                setattr(module, name, OrderedDict())
    try:
        yield
    finally:
        for module, name, held in hooks:
            setattr(module, name, held)


@contextmanager
def _plain_attention(model: nn.Module) -> Iterator[None]:
    """Let attention be computed by its formula: fused kernels have strides of their own, which a trace holds on to."""
    fused: list[tuple[Attention, Any]] = []  # Any: the functions of ATTENTIONS
    for module in model.modules():
        if isinstance(module, Attention) and module.attend is not eager_attention:
            fused.append((module, module.attend))
            module.attend = eager_attention
    try:
        yield
    finally:
        for module, attend in fused:
            module.attend = attend


@contextmanager
def overridden(model: nn.Module, values: Mapping[str, Any] | None) -> Iterator[None]:  # Any: of a configuration
    """Change values of a model's configuration where it has them; afterwards they are what they were.

    Args:
        model: A model of the library, or any with a ``config``.
        values: By name; None for none.
    """
    config = getattr(model, "hf_config", None)
    if isinstance(config, dict):
        kept = {name: config[name] for name in values or () if name in config}
        config.update({name: value for name, value in (values or {}).items() if name in kept})
        try:
            yield
        finally:
            config.update(kept)
        return
    other = getattr(model, "config", None)
    kept = {name: getattr(other, name) for name in values or () if hasattr(other, name)}
    try:
        for name in kept:
            setattr(other, name, (values or {})[name])
        yield
    finally:
        for name, value in kept.items():
            setattr(other, name, value)


def check_values(model: nn.Module) -> None:
    """Refuse a model whose weights are not in memory.

    Args:
        model: Any module.

    Raises:
        ValueError: If a weight is on the meta device; names it.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(
                f"{name!r} has no values here: it is offloaded, or on the meta device; load the model without a"
                " device_map that offloads, and export that"
            )
