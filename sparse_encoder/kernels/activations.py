"""The saturations of SPLADE, each with its slope. Elementwise maths; nothing here knows of tokens or pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Activation(NamedTuple):
    """A non-decreasing function that is 0 for logits at or below 0, and its derivative with respect to the logit."""

    apply: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


def _log_saturation(logits: Tensor) -> Tensor:
    return torch.log1p(torch.relu(logits))


def _log_saturation_slope(logits: Tensor) -> Tensor:
    return (logits > 0) / (1 + torch.relu(logits))


def _double_log_saturation(logits: Tensor) -> Tensor:
    return torch.log1p(torch.log1p(torch.relu(logits)))


def _double_log_saturation_slope(logits: Tensor) -> Tensor:
    positive = torch.relu(logits)
    return (logits > 0) / ((1 + positive) * (1 + torch.log1p(positive)))


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(_log_saturation, _log_saturation_slope),
    "log1p_relu": Activation(_double_log_saturation, _double_log_saturation_slope),
}
"""By the name the peer gives them: ``relu`` is log(1 + relu(z)), ``log1p_relu`` is log(1 + log(1 + relu(z)))."""


def activation_named(name: str) -> Activation:
    """Return the activation of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation_function {name!r}; choose from {sorted(ACTIVATIONS)}")
    return ACTIVATIONS[name]
