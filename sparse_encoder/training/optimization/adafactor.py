"""Adafactor with an outer learning rate, as the transformers trainer uses it; knows tensors only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparse_encoder.training.optimization.adamw import ParameterGroups


class Adafactor(Optimizer):
    r"""Adam's scaling by squared gradients, with two vectors instead of a matrix of them.

    With the gradient G of update t, :math:`\beta = 1 - t^{d}` and the decay rate d, rows and columns of a matrix keep
    :math:`R = \beta R + (1 - \beta) \, \mathrm{mean}_{columns}(G^2 + \epsilon)` and C likewise over rows, and

    .. math::
        U = G / \sqrt{R C^T / \mathrm{mean}(R)}, \qquad
        p = p - \eta \lambda p - \eta \, U / \max(1, \mathrm{rms}(U) / clip)

    A vector keeps all of its squares. The learning rate is the outer one: neither scaled by the size of a parameter
    nor made from the number of updates, as in transformers' trainer; :class:`torch.optim.Adafactor` does both.

    Source: Shazeer and Stern, 2018, https://arxiv.org/abs/1804.04235.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate.
        eps: Added to squared gradients.
        clip_threshold: Largest root mean square of an update per unit of learning rate.
        decay_rate: The exponent d, below 0.
        beta1: How much of a running mean of updates is kept; None keeps no such mean, and saves its memory.
        weight_decay: Decay per unit of learning rate.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        params: ParameterGroups,
        lr: float,
        *,
        eps: float = 1e-30,
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta1: float | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        if not decay_rate < 0:
            raise ValueError(f"decay_rate must be < 0, got {decay_rate}")
        if not clip_threshold > 0:
            raise ValueError(f"clip_threshold must be > 0, got {clip_threshold}")
        if beta1 is not None and not 0 <= beta1 < 1:
            raise ValueError(f"beta1 must be None or >= 0 and < 1, got {beta1}")
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ValueError(f"{name} must be >= 0, got {value}")
        defaults = {
            "lr": lr,
            "eps": eps,
            "clip_threshold": clip_threshold,
            "decay_rate": decay_rate,
            "beta1": beta1,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the parameters that have a gradient.

        Args:
            closure: Computes the loss and its gradient again.

        Returns:
            What the closure returned.

        Raises:
            RuntimeError: If a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.grad.is_sparse:
                    raise RuntimeError("Adafactor does not take sparse gradients; use torch.optim.SparseAdam for those")
                self._move(parameter, group)
        return loss

    def _move(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        """Update one parameter, in float32 or wider."""
        assert parameter.grad is not None
        gradient = _wide(parameter.grad)
        state: dict[str, Any] = self.state[parameter]
        if not state:
            _begin(state, gradient, first_moment=group["beta1"] is not None)
        state["step"] += 1
        update = _scaled(gradient, state, group)
        largest = (_root_mean_square(update) / group["clip_threshold"]).clamp_(min=1.0)
        update.div_(largest).mul_(group["lr"])
        if group["beta1"] is not None:
            state["exp_avg"] = state["exp_avg"].to(update)  # a resumed state has the type of its parameter
            update = state["exp_avg"].mul_(group["beta1"]).add_(update, alpha=1.0 - group["beta1"])
        wide = _wide(parameter.detach())
        if group["weight_decay"] > 0:
            wide.add_(wide, alpha=-group["weight_decay"] * group["lr"])
        wide.sub_(update)
        if wide.dtype != parameter.dtype:
            parameter.copy_(wide)


def _wide(tensor: Tensor) -> Tensor:
    """Return a tensor of 16 bits in float32, and any other as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _begin(state: dict[str, Any], gradient: Tensor, *, first_moment: bool) -> None:
    """Set up the state of a parameter."""
    state["step"] = 0
    if first_moment:
        state["exp_avg"] = torch.zeros_like(gradient)
    if gradient.ndim >= 2:
        state["exp_avg_sq_row"] = gradient.new_zeros(gradient.shape[:-1])
        state["exp_avg_sq_col"] = gradient.new_zeros(gradient.shape[:-2] + gradient.shape[-1:])
    else:
        state["exp_avg_sq"] = torch.zeros_like(gradient)


def _scaled(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """Add the squared gradient to its running means; returns the gradient over their root."""
    kept = 1.0 - state["step"] ** group["decay_rate"]
    squares = gradient.square().add_(group["eps"])

    def averaged(name: str, values: Tensor) -> Tensor:
        state[name] = state[name].to(values)
        mean: Tensor = state[name].mul_(kept).add_(values, alpha=1.0 - kept)
        return mean

    if gradient.ndim < 2:
        return averaged("exp_avg_sq", squares).rsqrt().mul_(gradient)
    rows = averaged("exp_avg_sq_row", squares.mean(dim=-1))
    columns = averaged("exp_avg_sq_col", squares.mean(dim=-2))
    by_row = (rows / rows.mean(dim=-1, keepdim=True)).rsqrt_().unsqueeze(-1)
    update: Tensor = (by_row * columns.unsqueeze(-2).rsqrt()).mul_(gradient)
    return update


def _root_mean_square(values: Tensor) -> Tensor:
    mean: Tensor = torch.linalg.vector_norm(values) / values.numel() ** 0.5
    return mean
