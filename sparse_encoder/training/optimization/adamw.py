"""AdamW as the transformers library had it up to version 4; knows tensors only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

ParameterGroups = Iterable[nn.Parameter] | Iterable[dict[str, Any]]  # the options of a group are of many types


class AdamW(Optimizer):
    r"""Adam with decoupled weight decay, in the form that transformers had.

    With the gradient g of update t:

    .. math::
        m = \beta_1 m + (1 - \beta_1) g, \qquad v = \beta_2 v + (1 - \beta_2) g^2

        p = p - \eta \, c \, m / (\sqrt{v} + \epsilon), \qquad p = p - \eta \lambda p, \qquad
        c = \sqrt{1 - \beta_2^t} / (1 - \beta_1^t)

    Unlike in :class:`torch.optim.AdamW`, epsilon is not corrected for the bias, the decay comes after the update, and
    the defaults of both are other ones.

    Source: Loshchilov and Hutter, 2019, https://arxiv.org/abs/1711.05101.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate.
        betas: How much of the running means of gradients and of their squares is kept.
        eps: Added to the denominator.
        weight_decay: Decay per unit of learning rate.
        correct_bias: Whether c is as above, or 1, as in BERT's original code.
        no_deprecation_warning: Accepted for the peer's sake: there is no such warning here.
        foreach: Whether to update all parameters of a kind at once; ``None`` does so unless all of them are on the
            CPU. The results are the same; parameters of 16 bits, for which they would not be, are updated one by one.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(  # house: peer signature
        self,
        params: ParameterGroups,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
        no_deprecation_warning: bool = False,
        *,
        foreach: bool | None = None,
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"lr must be >= 0, got {lr}")
        for beta in betas:
            if not 0 <= beta < 1:
                raise ValueError(f"betas must be >= 0 and < 1, got {betas}")
        if not eps >= 0:
            raise ValueError(f"eps must be >= 0, got {eps}")
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay must be >= 0, got {weight_decay}")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "correct_bias": correct_bias,
            "foreach": foreach,
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
            parameters = [each for each in group["params"] if each.grad is not None]
            if any(each.grad.is_sparse for each in parameters):
                raise RuntimeError("AdamW does not take sparse gradients; use torch.optim.SparseAdam for those")
            foreach = group["foreach"]
            if foreach is None:
                foreach = any(each.device.type != "cpu" for each in parameters)
            for batch in _of_a_kind(parameters) if foreach else [[each] for each in parameters]:
                self._update(batch, group, foreach=foreach)
        return loss

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any], *, foreach: bool) -> None:
        """Update parameters of one device and type."""
        states = [self._state_of(each) for each in parameters]
        sizes = [_step_size(state["step"], group) for state in states]
        narrow = parameters[0].dtype in (torch.float16, torch.bfloat16)  # torch rounds the factor for many at once
        move = _move_together if foreach and not narrow else _move_one
        move(
            parameters, [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states], sizes, group
        )

    def _state_of(self, parameter: nn.Parameter) -> dict[str, Any]:
        """Return the state of a parameter, one step on."""
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        return state


def _step_size(step: int, group: dict[str, Any]) -> float:
    """Return the learning rate, with the correction of the bias."""
    first, second = group["betas"]
    correction = math.sqrt(1.0 - second**step) / (1.0 - first**step) if group["correct_bias"] else 1.0
    return float(group["lr"] * correction)


def _of_a_kind(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Group parameters by device and type."""
    kinds: dict[tuple[torch.device, torch.dtype], list[nn.Parameter]] = {}
    for each in parameters:
        kinds.setdefault((each.device, each.dtype), []).append(each)
    return list(kinds.values())


def _move_one(
    parameters: list[nn.Parameter],
    means: list[Tensor],
    squares: list[Tensor],
    sizes: list[float],
    group: dict[str, Any],
) -> None:
    """Update parameters one by one; the formula as it is written."""
    first, second = group["betas"]
    for parameter, mean, square, size in zip(parameters, means, squares, sizes, strict=True):
        gradient = parameter.grad
        assert gradient is not None
        mean.mul_(first).add_(gradient, alpha=1.0 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1.0 - second)
        parameter.addcdiv_(mean, square.sqrt().add_(group["eps"]), value=-size)
        if group["weight_decay"] > 0:
            parameter.add_(parameter, alpha=-group["lr"] * group["weight_decay"])


def _move_together(
    parameters: list[nn.Parameter],
    means: list[Tensor],
    squares: list[Tensor],
    sizes: list[float],
    group: dict[str, Any],
) -> None:
    """Update parameters of one device and type with one kernel per operation."""
    first, second = group["betas"]
    gradients = [each.grad for each in parameters if each.grad is not None]
    tensors: list[Tensor] = list(parameters)
    torch._foreach_mul_(means, first)
    torch._foreach_add_(means, gradients, alpha=1.0 - first)
    torch._foreach_mul_(squares, second)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1.0 - second)
    denominators = torch._foreach_sqrt(squares)
    torch._foreach_add_(denominators, group["eps"])
    torch._foreach_addcdiv_(tensors, means, denominators, [-size for size in sizes])
    if group["weight_decay"] > 0:
        torch._foreach_add_(tensors, tensors, alpha=-group["lr"] * group["weight_decay"])
