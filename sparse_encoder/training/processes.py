"""Whether training runs in several processes, and what they agree on; knows nothing of what they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch.distributed as dist

Said = TypeVar("Said")


def world_size() -> int:
    """Return the number of processes; 1 if there is no group of them."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def said_by_first(value: Said) -> Said:
    """Return what the first process says, in all of them; all must call this.

    Args:
        value: Anything that can be pickled; that of the other processes is not looked at.
    """
    if world_size() == 1:
        return value
    said = [value]
    dist.broadcast_object_list(said, src=0)
    return said[0]


@contextmanager
def together(what: str) -> Iterator[None]:
    """Do something in which a process may fail by itself, so that the others do not wait for it forever.

    All processes must come here, and wait for each other at the end.

    Args:
        what: Named in the error.

    Raises:
        RuntimeError: In the processes that did not fail, if another one did; that one raises what it met.
    """
    if world_size() == 1:
        yield
        return
    is_done, outcomes = False, [False] * world_size()
    try:
        yield
        is_done = True
    finally:
        dist.all_gather_object(outcomes, is_done)
    if not all(outcomes):
        raise RuntimeError(f"{what} has failed in process {outcomes.index(False)}")
