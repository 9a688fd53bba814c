"""Sums over the rows of several calls, and the mean of them all as one call sees it; knows no formula of a penalty.

With S the sum over the own rows, N the rows and K the calls of all parts of an update, and a the mean over all rows, a
call is given

    a' = a.detach() + (S - S.detach()) * K / N

so that averaging the gradients of the parts, as data parallelism and accumulation do, gives the gradient at a.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from sparse_encoder.losses.base import mean_of_rows


class Total(NamedTuple):
    """What the calls of one place add up to."""

    sums: Tensor
    """Over the rows."""
    rows: Tensor
    calls: Tensor
    """Both scalars of the sums' type, so that all three travel together."""

    @classmethod
    def of(cls, values: Tensor) -> Total:
        """Add up the rows of one call, (B, ...)."""
        return cls(values.detach().sum(dim=0), values.new_full((), len(values)), values.new_ones(()))

    def plus(self, other: Total) -> Total:
        """Add another micro-batch's."""
        if self.sums.shape != other.sums.shape:
            raise ValueError(
                "micro-batches of one update must give a regularizer rows of one width, "
                f"got {tuple(self.sums.shape)} and {tuple(other.sums.shape)}"
            )
        return Total(self.sums + other.sums, self.rows + other.rows, self.calls + other.calls)

    def over_processes(self) -> Total:
        """Add up the totals of all processes; each must ask for it."""
        packed = torch.cat([self.sums.flatten(), torch.stack([self.rows, self.calls])])
        dist.all_reduce(packed)
        return Total(packed[:-2].view_as(self.sums), packed[-2], packed[-1])

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of all rows, with a gradient that reaches this call's, (B, ...)."""
        own = values.sum(dim=0)
        return self.sums / self.rows + (own - own.detach()) * (self.calls / self.rows)


def mean_over_processes(values: Tensor) -> Tensor:
    """Exchange in the middle of a step what one call of every process gives."""
    return Total.of(values).over_processes().mean(values)


class Rehearsal:
    """Adds up what a regularizer is given in a first pass over the micro-batches, and hands the means to the second.

    A regularizer may be called several times per micro-batch, for documents and for queries: the first calls of all
    micro-batches belong together, and so do the second ones.
    """

    def __init__(self) -> None:
        self.totals: list[Total] = []  # by position of the call within its micro-batch
        self.positions: list[int] = []  # of every call of the pass
        self.next_position = 0
        self.calls_replayed = 0

    def begin_micro_batch(self) -> None:
        """Count the calls of a micro-batch from its first."""
        self.next_position = 0

    def record(self, values: Tensor) -> Tensor:
        """Take the rows of a call in; their mean is only that of this call."""
        total, position = Total.of(values), self.next_position
        if position == len(self.totals):
            self.totals.append(total)
        else:
            self.totals[position] = self.totals[position].plus(total)
        self.positions.append(position)
        self.next_position += 1
        return mean_of_rows(values)

    def replay(self, values: Tensor) -> Tensor:
        """Return the mean of the rows of all calls that belong to this one."""
        if self.calls_replayed == len(self.positions):
            raise RuntimeError(f"a regularizer was called more than {len(self.positions)} times, as in the first pass")
        total = self.totals[self.positions[self.calls_replayed]]
        self.calls_replayed += 1
        return total.mean(values)
