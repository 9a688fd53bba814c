"""Means over the rows of an update, whichever process and micro-batch they are in; knows no formula of a penalty.

A penalty that is not linear in the rows, such as FLOPS, differs between one batch of 32 rows and the mean over four
batches of 8. Here each part of the update gets the mean over all of its rows, with a gradient that reaches the part's
own rows only (:mod:`sparse_encoder.losses.row_totals`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sparse_encoder.losses.base import always, mean_of_rows
from sparse_encoder.losses.row_totals import Rehearsal, Total, mean_over_processes

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
                regularizer.mean_over_batch = mean_over_processes
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
) -> list[Rehearsal]:
    """Go through the micro-batches without gradient; returns what each regularizer was given."""
    rehearsals = [Rehearsal() for _ in regularizers]
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


def _add_over_processes(rehearsals: list[Rehearsal]) -> None:
    """Add up the totals of all processes."""
    for rehearsal in rehearsals:
        rehearsal.totals = [total.over_processes() for total in rehearsal.totals]


def _agree_on_places(rehearsals: list[Rehearsal], device: torch.device) -> None:
    """Give every process the places that any process has, with zeros in those that it has no rows for."""
    own = [[(tuple(total.sums.shape), total.sums.dtype) for total in each.totals] for each in rehearsals]
    of_all: list[list[list[tuple[tuple[int, ...], torch.dtype]]]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(of_all, own)
    for rehearsal, places in zip(rehearsals, zip(*of_all, strict=True), strict=True):
        for position in range(len(rehearsal.totals), max(map(len, places))):
            shape, dtype = next(each[position] for each in places if len(each) > position)
            zeros = torch.zeros(shape, dtype=dtype, device=device)
            rehearsal.totals.append(Total(zeros, zeros.new_zeros(()), zeros.new_zeros(())))
