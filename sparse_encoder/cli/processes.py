"""A command in several processes: the first one works, and the others encode for it. Knows no command.

A launcher such as ``torchrun`` starts the processes and tells each its number by ``RANK``, ``LOCAL_RANK`` and
``WORLD_SIZE``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

from sparse_encoder.encoding.workers import portable

Made = TypeVar("Made")


def num_processes() -> int:
    """Return how many processes a launcher has started; 1 without one."""
    count = os.environ.get("WORLD_SIZE", "1")
    return int(count) if count.isdecimal() else 1


def device_of_process(device: str | None) -> str | None:
    """Return the device of this process: the GPUs of a machine are taken in turn unless one is named by its number."""
    if device not in (None, "cuda") or not torch.cuda.is_available() or num_processes() == 1:
        return device
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


@contextmanager
def process_group() -> Iterator[None]:
    """Meet the other processes for a while, by gloo, as only Python objects are exchanged; a group there is stays.

    Raises:
        ValueError: If the launcher has not said how to meet them.
    """
    if dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def made_by_all(make: Callable[[], Made]) -> Made:
    """Make something in every process; what goes wrong in one of them is raised in all, so that none waits for it.

    Args:
        make: Called in every process.

    Returns:
        What this process made.

    Raises:
        Exception: The error of the first process that has one.
    """
    made, error = [], None
    try:
        made.append(make())
    except Exception as reason:  # whatever it is, all raise it
        error = portable(reason)
    errors: list[Exception | None] = [None] * dist.get_world_size()
    dist.all_gather_object(errors, error)
    for each in errors:
        if each is not None:
            raise each
    return made[0]
