"""Means over the rows of an update, whichever process and micro-batch they are in; knows no formula of a penalty.

A penalty that is not linear in the rows, such as FLOPS, differs between one batch of 32 rows and the mean over four
batches of 8. Here each part of the update gets the mean over all of its rows, with a gradient that reaches the part's
own rows only. With S the sum over the own rows, N the rows and K the calls of all parts, the mean is

    a' = a.detach() + (S - S.detach()) * K / N

so that averaging the gradients of the parts, as data parallelism and accumulation do, gives the gradient at a.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sparse_encoder.losses.base import always, mean_of_rows

MicroBatch = Callable[[], object]


class _Averaging(Protocol):
    """A regularizer, or another module that averages over the rows of a batch."""

    mean_over_batch: Callable[[Tensor], Tensor]


class _Adapting(_Averaging, Protocol):
    """One that changes with what it is given, once per update."""

    begins_update: Callable[[], bool]


class _Once:
    """True at the first call only."""

    def __init__(self) -> None:
        self.was_called = False

    def __call__(self) -> bool:
        first, self.was_called = not self.was_called, True
        return first


def _never() -> bool:
    return False


class _Total(NamedTuple):
    """What the calls of one place add up to."""

    sums: Tensor
    """Over the rows."""
    rows: Tensor
    calls: Tensor
    """Both scalars of the sums' type, so that all three travel together."""

    @classmethod
    def of(cls, values: Tensor) -> _Total:
        """Add up the rows of one call, (B, ...)."""
        return cls(values.detach().sum(dim=0), values.new_full((), len(values)), values.new_ones(()))

    def plus(self, other: _Total) -> _Total:
        """Add another micro-batch's."""
        if self.sums.shape != other.sums.shape:
            raise ValueError(
                "micro-batches of one update must give a regularizer rows of one width, "
                f"got {tuple(self.sums.shape)} and {tuple(other.sums.shape)}"
            )
        return _Total(self.sums + other.sums, self.rows + other.rows, self.calls + other.calls)

    def over_processes(self) -> _Total:
        """Add up the totals of all processes; each must ask for it."""
        packed = torch.cat([self.sums.flatten(), torch.stack([self.rows, self.calls])])
        dist.all_reduce(packed)
        return _Total(packed[:-2].view_as(self.sums), packed[-2], packed[-1])

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of all rows, with a gradient that reaches this call's, (B, ...)."""
        own = values.sum(dim=0)
        return self.sums / self.rows + (own - own.detach()) * (self.calls / self.rows)


def _mean_over_processes(values: Tensor) -> Tensor:
    """Exchange in the middle of a step what one call of every process gives."""
    return _Total.of(values).over_processes().mean(values)


class _Rehearsal:
    """Adds up what a regularizer is given in a first pass over the micro-batches, and hands the means to the second.

    A regularizer may be called several times per micro-batch, for documents and for queries: the first calls of all
    micro-batches belong together, and so do the second ones.
    """

    def __init__(self) -> None:
        self.totals: list[_Total] = []  # by position of the call within its micro-batch
        self.positions: list[int] = []  # of every call of the pass
        self.next_position = 0
        self.calls_replayed = 0

    def begin_micro_batch(self) -> None:
        self.next_position = 0

    def record(self, values: Tensor) -> Tensor:
        """Take the rows of a call in; their mean is only that of this call."""
        total, position = _Total.of(values), self.next_position
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


@contextmanager
def global_batch(objective: nn.Module, micro_batches: Sequence[MicroBatch], *, in_step: bool = True) -> Iterator[None]:
    """Let the regularizers of an objective judge all rows of an update: those of all micro-batches and processes.

    Inside, each micro-batch's loss is to be computed once, in their order, for gradients that are then averaged over
    micro-batches and processes. With several micro-batches, these are gone through once more before, without gradient:
    what they draw at random must be the same in both passes, so each has to seed its own. Buffers stay as they were.
    The context itself draws nothing and leaves nothing behind.

    Args:
        objective: A loss, or a container of losses; without a module in it that has ``mean_over_batch``, as every
            :class:`Regularizer` does, nothing happens. Modules that have ``begins_update`` adapt themselves in the
            second pass only, and in its first call.
        micro_batches: Compute the loss of each micro-batch of this process.
        in_step: Whether all processes call the same regularizers in the same order. If not, as with a loss per
            dataset, even a single micro-batch is gone through twice.

    Raises:
        RuntimeError: If the second pass calls a regularizer more or less often than the first.
        ValueError: If the rows of a regularizer differ in width.
    """
    regularizers = [cast(_Averaging, each) for each in objective.modules() if "mean_over_batch" in vars(each)]
    adapting = [cast(_Adapting, each) for each in regularizers if "begins_update" in vars(each)]
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    if not regularizers or not (several or len(micro_batches) > 1):
        yield
        return
    try:
        if len(micro_batches) == 1 and in_step:
            for regularizer in regularizers:
                regularizer.mean_over_batch = _mean_over_processes
            yield
            return
        for module in adapting:
            module.begins_update = _never
        rehearsals = _rehearse(objective, regularizers, micro_batches)
        if several and not in_step:
            device = next((each.device for each in objective.parameters()), torch.device("cpu"))
            _agree_on_places(rehearsals, device)
        if several:
            _add_over_processes(rehearsals)
        for regularizer, rehearsal in zip(regularizers, rehearsals, strict=True):
            regularizer.mean_over_batch = rehearsal.replay
        for module in adapting:
            module.begins_update = _Once()
        yield
        for regularizer, rehearsal in zip(regularizers, rehearsals, strict=True):
            if rehearsal.calls_replayed != len(rehearsal.positions):
                raise RuntimeError(
                    f"{type(regularizer).__name__} was called {len(rehearsal.positions)} times in the first pass over "
                    f"the micro-batches and {rehearsal.calls_replayed} times in the second"
                )
    finally:
        for regularizer in regularizers:
            regularizer.mean_over_batch = mean_of_rows
        for module in adapting:
            module.begins_update = always


def _rehearse(
    objective: nn.Module, regularizers: list[_Averaging], micro_batches: Sequence[MicroBatch]
) -> list[_Rehearsal]:
    """Go through the micro-batches without gradient; returns what each regularizer was given."""
    rehearsals = [_Rehearsal() for _ in regularizers]
    for regularizer, rehearsal in zip(regularizers, rehearsals, strict=True):
        regularizer.mean_over_batch = rehearsal.record
    with torch.no_grad():
        before = [(buffer, buffer.clone()) for buffer in objective.buffers()]
        try:
            for compute in micro_batches:
                for rehearsal in rehearsals:
                    rehearsal.begin_micro_batch()
                compute()
        finally:
            for buffer, values in before:
                buffer.copy_(values)
    return rehearsals


def _add_over_processes(rehearsals: list[_Rehearsal]) -> None:
    """Add up the totals of all processes."""
    for rehearsal in rehearsals:
        rehearsal.totals = [total.over_processes() for total in rehearsal.totals]


def _agree_on_places(rehearsals: list[_Rehearsal], device: torch.device) -> None:
    """Give every process the places that any process has, with zeros in those that it has no rows for."""
    own = [[(tuple(total.sums.shape), total.sums.dtype) for total in each.totals] for each in rehearsals]
    of_all: list[list[list[tuple[tuple[int, ...], torch.dtype]]]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(of_all, own)
    for rehearsal, places in zip(rehearsals, zip(*of_all, strict=True), strict=True):
        for position in range(len(rehearsal.totals), max(map(len, places))):
            shape, dtype = next(each[position] for each in places if len(each) > position)
            zeros = torch.zeros(shape, dtype=dtype, device=device)
            rehearsal.totals.append(_Total(zeros, zeros.new_zeros(()), zeros.new_zeros(())))
