"""Whether training runs in several processes, and what they agree on; knows nothing of what they do."""

from __future__ import annotations

import atexit
import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch.distributed as dist

Said = TypeVar("Said")
_LAST_SECONDS = 0.1  # what gloo's threads get to let go of the tensors of the last exchange, which takes them far less


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


@cache
def end_group_at_exit() -> None:
    """See to it that the threads of a gloo group have ended when the interpreter is taken down; once is enough.

    They let go of Python's tensors some time after an exchange. One that does so while the interpreter goes aborts the
    process ("terminate called without an active exception"), and a launcher takes the run for failed. A group that the
    script has made itself is ended too, if it is still there.
    """
    atexit.register(_end_group)


def _end_group() -> None:
    """End the group that is left, unless an error ends the process: then its threads may wait for other processes."""
    is_there = dist.is_available() and dist.is_initialized()
    if not is_there or "gloo" not in dist.get_backend_config() or hasattr(sys, "last_value"):
        return
    dist.destroy_process_group()
    gc.collect()  # the threads end with the last object that holds the group, and wrapped models lie in cycles
    time.sleep(_LAST_SECONDS)  # torch's caches of sharded tensors keep the group
