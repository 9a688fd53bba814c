"""The update of the weights, left out when the gradient is not finite; knows optimizers and scalers, no models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

SMALLEST_SCALE = 1.0
TensorOrParameter = TypeVar("TensorOrParameter", bound=Tensor)


class GuardedUpdate:
    """Clip the gradient and let the optimizer move the weights, unless the gradient is not finite.

    Optimizers that can leave out an update on the device (torch's fused ones) never make the process wait for it; the
    others cost one transfer of a number per update. What is left out is counted on the device.

    With a scaler, for float16, losses are multiplied by a factor that is halved whenever the gradient overflows. That
    is part of the search for the factor, so such an update is left out without being counted; it counts once the
    factor is at 1 and cannot be what made the gradient overflow. It costs a transfer per update with any optimizer.

    Args:
        optimizer: Moves the weights.
        max_grad_norm: Longer gradients are scaled down to it; 0 leaves them as they are.
        skipped_in_a_row: Updates that were left out right before, in an earlier part of the run.
        scaler: Of the losses, for float16; None, or one that is not enabled, leaves them as they are.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_grad_norm: float,
        skipped_in_a_row: int = 0,
        scaler: GradScaler | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._skipped: Tensor | None = None  # in a row, in all, and the most in a row: (3,)
        self._skipped_before = skipped_in_a_row
        self._unscaled = False  # whether the scaler has looked at this update's gradients

    def go_on(self, skipped_in_a_row: int) -> None:
        """Count from where an earlier part of the run stood; before the first update."""
        self._skipped_before = skipped_in_a_row

    def scale(self, loss: Tensor) -> Tensor:
        """Return what to call ``backward`` of: the loss, times the factor of the scaler if there is one."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def clip(self) -> Tensor:
        """Scale the gradient back and then down to the largest norm; returns its norm before, a scalar tensor."""
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        moved = [each for each in parameters if each.grad is not None]
        if not moved:
            return torch.zeros((), device=parameters[0].device)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
            self._unscaled = True
        norm = total_norm([_values(each) for each in moved])
        if self.max_grad_norm > 0:
            _shorten(moved, self.max_grad_norm, norm)
        return norm

    def step(self, norm: Tensor) -> bool:
        """Update the weights if the norm of their gradient is finite.

        Args:
            norm: What :meth:`clip` returned.

        Returns:
            Whether the schedule goes on; False if a scaler left the update out.
        """
        if self.scaler is not None and self._unscaled:
            return self._step_scaled(self.scaler, norm)
        not_finite = (~torch.isfinite(norm)).float()
        self._count(not_finite)
        if getattr(self.optimizer, "_step_supports_amp_scaling", False):  # torch's own name for: skips on the device
            self.optimizer.found_inf = not_finite  # type: ignore[attr-defined]
            self.optimizer.step()
            del self.optimizer.found_inf  # type: ignore[attr-defined]
        else:
            if not_finite:
                self.optimizer.zero_grad(set_to_none=True)  # parameters without a gradient are not moved
            self.optimizer.step()
        return True

    def skipped(self) -> tuple[int, int]:
        """Return how many updates were left out in a row up to the last one, and in all, in one transfer."""
        return self.skips()[:2]

    def skips(self) -> tuple[int, int, int]:
        """Return the same and, behind it, the most that were ever left out in a row; in one transfer too."""
        if self._skipped is None:
            return self._skipped_before, 0, self._skipped_before
        in_a_row, total, longest = map(int, self._skipped.tolist())
        return in_a_row, total, longest

    def state_dict(self) -> dict[str, Any]:  # numbers of two types
        """Return the scaler's state, as JSON can hold it; empty without one."""
        return {} if self.scaler is None else dict(self.scaler.state_dict())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ValueError: If it is of an update with a scaler and this one has none, or the other way around.
        """
        if (self.scaler is None) != (not state_dict):
            raise ValueError(
                "the state of a loss scaler goes with fp16=True only, got "
                f"{'no state' if not state_dict else 'a state'} {'with' if self.scaler is not None else 'without'} it"
            )
        if self.scaler is not None:
            if missing := sorted(set(self.scaler.state_dict()) - set(state_dict)):
                raise ValueError(f"the state of the loss scaler lacks {missing}")
            self.scaler.load_state_dict(dict(state_dict))

    def _step_scaled(self, scaler: GradScaler, norm: Tensor) -> bool:
        """Update the weights and the scaler; returns whether the weights moved."""
        self._unscaled = False
        before = scaler.get_scale()
        finite = bool(torch.isfinite(norm))
        if finite:
            self.optimizer.step()
        scaler.update()
        if not finite:  # the norm may overflow where no gradient of this process does, which the scaler does not see
            scale = max(SMALLEST_SCALE, before * scaler.get_backoff_factor())
            scaler.load_state_dict({**scaler.state_dict(), "scale": scale, "_growth_tracker": 0})
        if finite or before <= SMALLEST_SCALE:
            self._count((~torch.isfinite(norm)).float())
        return finite

    def _count(self, not_finite: Tensor) -> None:
        """Count an update that is left out (1) or not (0)."""
        if self._skipped is None:
            before = float(self._skipped_before)
            self._skipped = torch.tensor([before, 0.0, before], device=not_finite.device)
        in_a_row, taken, longest = self._skipped
        in_a_row = (in_a_row + 1) * not_finite
        self._skipped = torch.stack([in_a_row, taken + not_finite, torch.maximum(longest, in_a_row)])


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of all numbers of some dense tensors, added up in float32 or wider; a scalar tensor."""
    wide = [each for each in gradients if each.dtype not in (torch.float16, torch.bfloat16)]
    if len(wide) == len(gradients) and len(_by_kind(wide)) <= 1:
        return _whole(torch.nn.utils.get_total_norm(wide))
    norms = [
        _whole(torch.linalg.vector_norm(each, dtype=torch.float32))
        for each in gradients
        if each.dtype in (torch.float16, torch.bfloat16)
    ]
    norms += [_whole(torch.nn.utils.get_total_norm(kind)) for kind in _by_kind(wide)]
    total: Tensor = torch.linalg.vector_norm(torch.stack([each.to(norms[0].device) for each in norms]))
    return total


def _by_kind(tensors: Sequence[TensorOrParameter]) -> list[list[TensorOrParameter]]:
    """Split tensors into sharded and other ones, which no kernel mixes; leaves out what is empty."""
    kinds = [[each for each in tensors if hasattr(each, "full_tensor") is sharded] for sharded in (True, False)]
    return [kind for kind in kinds if kind]


def _whole(norm: Tensor) -> Tensor:
    """Return a norm over all processes: that of sharded gradients is known in parts only."""
    if not hasattr(norm, "full_tensor"):
        return norm
    full: Tensor = norm.full_tensor()
    return full


def _values(parameter: nn.Parameter) -> Tensor:
    """Return the numbers of a gradient; a sparse one is coalesced first, in place."""
    assert parameter.grad is not None
    if not parameter.grad.is_sparse:
        return parameter.grad
    parameter.grad = parameter.grad.coalesce()
    return parameter.grad.values()


@torch.no_grad()
def _shorten(parameters: Sequence[nn.Parameter], limit: float, norm: Tensor) -> None:
    """Scale gradients of this norm down to a limit, in place."""
    dense = [each for each in parameters if each.grad is not None and not each.grad.is_sparse]
    for kind in _by_kind(dense):
        torch.nn.utils.clip_grads_with_norm_(kind, limit, norm)
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    for each in parameters:
        if each.grad is not None and each.grad.is_sparse:
            each.grad.values().mul_(factor.to(each.grad.device))
