"""A weight that steers itself until texts have as many active terms as wanted; knows no penalty's formula.

Active terms a are compared with an aim that wanders, at most PACE per update, from where the encoder begins to the
target, and waits for an encoder that is farther behind than LEAD. All in log space, once per update:

    e = log(a / aim), smoothed over a few updates
    z <- z + INTEGRAL * clamp(e + LOOK_AHEAD * (change of log a per update), -FALL, 1)
    weight = exp(z + PROPORTIONAL * clamp(e, -1, 1))

The sum z begins where the weighted penalty is START times the ranking loss, so that no scale has to be known. It goes
by where active terms will be in LOOK_AHEAD updates. It stops where the penalty is CEILING times the ranking loss: more
moves no encoder faster, but it fills the averages of an optimizer, and silences terms for good. And it stops at FLOOR
times the ranking loss while there are more terms than the target, from where it is soon back.

It begins with the first update that has both a penalty and a ranking loss; until then the weight is 0. An update in
which anything is infinite or NaN is as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sparse_encoder.losses.base import always, mean_of_rows
from sparse_encoder.losses.checks import check_positive

START = 0.1
CEILING = 2.0
FLOOR = 0.01
PACE = 0.01
LEAD = 0.5
INTEGRAL = 0.05
FALL = 2.0
PROPORTIONAL = 2.0
LOOK_AHEAD = 10.0
SMOOTHING = 0.8
"""Share of the old number of active terms in the smoothed one."""
MEMORY = 0.98
"""The same of the ranking loss."""
RANGE = math.log(1e8)
"""How far z may fall from where it began, and rise without a penalty."""
FEWEST = 1e-3
"""Active terms per text that count as none."""
TINIEST = 1e-30


class SparsityTarget(nn.Module):
    """Weigh a penalty so that texts come to have a number of active terms.

    What it has learnt is in buffers, and so in checkpoints. It adapts itself when there is a gradient, once per update:
    evaluations use the weight as it is.

    Args:
        target_dims: Active terms per text, on average.

    Raises:
        TypeError: If it is not a number.
        ValueError: If the number is not above 0.
    """

    mean_over_batch: Callable[[Tensor], Tensor]
    """As of a :class:`sparse_encoder.losses.base.Regularizer`."""
    begins_update: Callable[[], bool]
    updates: Tensor
    log_weight: Tensor
    """z."""
    origin: Tensor
    """Where z began."""
    log_active: Tensor
    """Smoothed."""
    log_aim: Tensor
    ranking_scale: Tensor
    """Smoothed."""

    def __init__(self, target_dims: float) -> None:
        super().__init__()
        check_positive("the target of active terms", target_dims)
        self.target_dims = float(target_dims)
        self.mean_over_batch = mean_of_rows
        self.begins_update = always
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        for name in ("log_weight", "origin", "log_active", "log_aim", "ranking_scale"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float32))

    def forward(self, penalty: Tensor, embeddings: Tensor, ranking: Tensor) -> Tensor:
        """Return the weighted penalty.

        Args:
            penalty: Of the embeddings, a scalar tensor.
            embeddings: Term weights, (B, V).
            ranking: The loss beside which the penalty stands, a scalar tensor.
        """
        active = (embeddings.detach() != 0).sum(dim=1).float()  # (B,)
        seen = torch.stack([active, ranking.detach().float().expand_as(active)], dim=1)
        seen = self.mean_over_batch(seen).detach()  # (2,), of the whole update
        if embeddings.requires_grad and torch.is_grad_enabled() and self.begins_update():
            self._adapt(seen[0], seen[1], penalty.detach().float())
        return penalty * self.weight.to(penalty.dtype)

    @property
    def weight(self) -> Tensor:
        """What the penalty is multiplied by, a scalar tensor; 0 before there was anything to go by."""
        weight = (self.log_weight + PROPORTIONAL * self._error().clamp(-1, 1)).exp()
        return torch.where(self.updates > 0, weight, 0.0)

    def _error(self) -> Tensor:
        return self.log_active - self.log_aim

    @torch.no_grad()
    def _adapt(self, active: Tensor, ranking: Tensor, penalty: Tensor) -> None:
        """Move aim and weight by what one update shows, if it shows anything."""
        is_first = self.updates == 0
        can_begin = (ranking != 0) & (penalty > 0)
        counts = (active + ranking + penalty).isfinite() & (can_begin | ~is_first)
        scale = torch.where(is_first, ranking.abs(), torch.lerp(ranking.abs(), self.ranking_scale, MEMORY))
        ceiling = (CEILING * scale.clamp(min=TINIEST) / penalty.clamp(min=TINIEST)).log()
        start = ceiling + math.log(START / CEILING)
        origin = torch.where(is_first, start, self.origin)
        measured = active.clamp(min=FEWEST).log()
        smoothed = torch.where(is_first, measured, torch.lerp(measured, self.log_active, SMOOTHING))
        change = torch.where(is_first, torch.zeros_like(smoothed), smoothed - self.log_active)
        aim = torch.where(is_first, smoothed, self.log_aim)
        aim = aim + (math.log(self.target_dims) - aim).clamp(-PACE, PACE)
        aim = torch.maximum(aim, smoothed - LEAD)
        z = torch.where(is_first, start, self.log_weight)
        z = z + INTEGRAL * (smoothed - aim + LOOK_AHEAD * change).clamp(-FALL, 1)
        z = _within(z, origin, ceiling, is_penalized=penalty > TINIEST, is_dense=active > self.target_dims)
        found = {"ranking_scale": scale, "log_active": smoothed, "log_aim": aim, "origin": origin, "log_weight": z}
        for name, value in found.items():
            old = self.get_buffer(name)
            old.copy_(torch.where(counts, value, old))
        self.updates += counts


def _within(z: Tensor, origin: Tensor, ceiling: Tensor, *, is_penalized: Tensor, is_dense: Tensor) -> Tensor:
    """Keep z in its bounds; the ceiling, which says nothing without a penalty, has the last word."""
    z = torch.maximum(z, torch.minimum(origin, ceiling) - RANGE)
    z = torch.where(is_penalized & is_dense, torch.maximum(z, ceiling + math.log(FLOOR / CEILING)), z)
    return torch.minimum(z, torch.where(is_penalized, ceiling, origin + RANGE))
