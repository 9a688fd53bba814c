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
    """Gather the rows of all ranks.

    Args:
        rows: Rows of this rank, (B, V). With gradients, in training, all ranks must have equally many; the last batches
            of an evaluation may differ.

    Returns:
        The rows of all ranks in order of rank, (R * B, V), with their gradients, and the position of this rank's first
        row in them. In a process that is not part of a group these are the rows as they are, and 0.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return rows, 0
    if not torch.is_grad_enabled():
        return _gather_uneven(rows)
    gathered: Tensor = _GatherRows.apply(rows)  # type: ignore[no-untyped-call]
    return gathered, dist.get_rank() * rows.shape[0]


def _gather_uneven(rows: Tensor) -> tuple[Tensor, int]:
    """Gather rows without gradients, of ranks that may have different numbers of them; waits for the device."""
    own = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, own)
    sizes = [int(size) for size in torch.cat(counts).tolist()]
    padded = torch.nn.functional.pad(rows, (0, 0, 0, max(sizes) - len(rows)))
    gathered = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(gathered, padded.contiguous())
    parts = [part[:size] for part, size in zip(gathered, sizes, strict=True)]
    return torch.cat(parts), sum(sizes[: dist.get_rank()])
