"""Parameter groups; knows losses and models as modules with parameters only."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from sparse_encoder.training.sharding import class_name, split_by_kind

logger = logging.getLogger(__name__)

_NORMS = (nn.LayerNorm, nn.RMSNorm)
_NOT_DECAYED = re.compile(r"bias|layernorm|rmsnorm|(^|\.)norm($|\.)|_norm($|\.)")

ParameterGroup = dict[str, Any]  # params, and the options of an optimizer


def trainable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained by name, shared ones once."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def parameter_groups(
    module: nn.Module,
    *,
    weight_decay: float,
    learning_rates: Mapping[str, float],
    decayed: Collection[str] | None = None,
) -> list[ParameterGroup]:
    """Group the trained parameters by weight decay and learning rate.

    Biases and the parameters of norms are not decayed. The groups come as: decayed, not decayed, then the same two for
    each pattern; empty ones are left out, and those with sharded and other parameters are split.

    Args:
        module: What is trained, usually a loss that holds a model.
        weight_decay: Of the decayed groups.
        learning_rates: Learning rates by regular expression; see :func:`searchable_names`.
        decayed: Names of the parameters that are decayed; ``None`` leaves out biases and norms.

    Raises:
        ValueError: If a pattern finds no trained parameter.
    """
    parameters = trainable_parameters(module)
    pattern_of = _assign_patterns(module, parameters, learning_rates)
    decayed = decayed_names(module) if decayed is None else set(decayed)
    groups: list[ParameterGroup] = []
    for pattern in (None, *learning_rates):
        for decay in (True, False):
            names = [name for name in parameters if pattern_of[name] == pattern and (name in decayed) == decay]
            if not names:
                continue
            group: ParameterGroup = {
                "params": [parameters[name] for name in names],
                "weight_decay": weight_decay if decay else 0.0,
            }
            if pattern is not None:
                group["lr"] = learning_rates[pattern]
            groups.append(group)
    return split_by_kind(groups)


def decayed_names(module: nn.Module) -> set[str]:
    """Return the names of the parameters that weight decay applies to."""
    in_norms = {
        f"{path}.{name}" if path else name
        for path, part in module.named_modules()
        if isinstance(part, _NORMS)
        for name, _ in part.named_parameters(recurse=False)
    }
    return {
        name for name, _ in module.named_parameters() if name not in in_norms and not _NOT_DECAYED.search(name.lower())
    }


def searchable_names(module: nn.Module) -> dict[str, list[str]]:
    """Return what patterns are searched in, for every parameter: its name, and its name within each module around it.

    The latter begin with the module's class: ``SparseStaticEmbedding.weight``.
    """
    names = {name: [name] for name, _ in module.named_parameters()}
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        for name, texts in names.items():
            if name.startswith(prefix):
                texts.append(f"{class_name(part)}.{name.removeprefix(prefix)}")
    return names


def _assign_patterns(
    module: nn.Module, parameters: Iterable[str], learning_rates: Mapping[str, float]
) -> dict[str, str | None]:
    """Return the first pattern that is found in each parameter's names."""
    names = searchable_names(module) if learning_rates else {}
    found = {
        name: [pattern for pattern in learning_rates if any(re.search(pattern, text) for text in names[name])]
        for name in parameters
    }
    for pattern in learning_rates:
        if not any(pattern in patterns for patterns in found.values()):
            raise ValueError(
                f"the pattern {pattern!r} of learning_rate_mapping finds no trained parameter; "
                f"there are {list(found)[:10]} and others"
            )
    twice = [name for name, patterns in found.items() if len(patterns) > 1]
    if twice:
        logger.warning("several patterns of learning_rate_mapping find %s; the first one counts", twice[:10])
    return {name: patterns[0] if patterns else None for name, patterns in found.items()}


def learning_rates_of(optimizer: Optimizer) -> list[float]:
    """Return the learning rate of each group."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def find_group(optimizer: Optimizer, parameter: nn.Parameter) -> ParameterGroup:
    """Return the group that holds this very parameter.

    Raises:
        ValueError: If none does.
    """
    for group in optimizer.param_groups:
        if any(each is parameter for each in group["params"]):
            return group
    raise ValueError("the parameter is in no group of the optimizer; is it frozen, or of another model?")


def named_parameter(module: nn.Module, name: str) -> nn.Parameter:
    """Return a parameter by its name.

    Raises:
        ValueError: If there is none of this name.
    """
    parameters = dict(module.named_parameters())
    if name not in parameters:
        raise ValueError(f"there is no parameter {name!r}; there are {list(parameters)[:10]} and others")
    return parameters[name]
