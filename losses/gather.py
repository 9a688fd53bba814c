"""Rows of all processes, with their gradients; knows nothing of losses."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _GatherRows(torch.autograd.Function):
    """Concatenate the rows of all ranks; the backward adds up what every rank wants of them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # noqa: ANN401  (torch gives the context no public type)
        ctx.num_rows = rows.shape[0]
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401  (as above)
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        start = dist.get_rank() * ctx.num_rows
        return total[start : start + ctx.num_rows]


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Gather the rows of all ranks, which must have equally many.

    Args:
        rows: Rows of this rank, (B, V).

    Returns:
        The rows of all ranks in order of rank, (R * B, V), and the position of this rank's first row in them. In a
        process that is not part of a group these are the rows as they are, and 0.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return rows, 0
    gathered: Tensor = _GatherRows.apply(rows)  # type: ignore[no-untyped-call]
    return gathered, dist.get_rank() * rows.shape[0]
