"""Start a function in several processes that form a gloo group, and collect what it returns."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import sparse_encoder

Work = Callable[[int, str], Any]  # (rank, folder) to anything that torch.load takes as weights
IMPORTED = ("pytest", "torch", "datasets", "accelerate", "sparse_encoder.evaluation", "sparse_encoder.training")
"""What all ranks need and one process imports for all; seconds for each rank of each test otherwise."""
PACKAGE = str(sparse_encoder.__file__)
ENVIRONMENT = dict(os.environ)
"""Of the tests as a whole: what a single test sets is gone when the next one runs, the server is not."""


@contextmanager
def place_of_server() -> Iterator[None]:
    """Be where a new interpreter imports what this one does, with nothing that a single test has set.

    The server imports before it knows the path of this process, and looks into the present folder first.
    """
    before = Path.cwd()
    path = os.pathsep.join(each for each in sys.path if each)
    with mock.patch.dict(os.environ, {**ENVIRONMENT, "PYTHONPATH": path}, clear=True):
        os.chdir(Path(PACKAGE).parents[1])
        try:
            yield
        finally:
            os.chdir(before)


def run_rank(rank: int, work: Work, ranks: int, folder: str, environment: dict[str, str], package: str) -> None:
    assert package == PACKAGE, f"the tests are of {package}, and this rank has imported {PACKAGE}"
    torch.set_num_threads(1)
    os.environ.clear()
    os.environ |= environment
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}  # not listened on
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=ranks, timeout=timedelta(seconds=120)
    )
    torch.save(work(rank, folder), Path(folder) / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # gloo's threads sometimes abort a process whose interpreter is taken down around them


def in_processes(work: Work, *, ranks: int, folder: Path, fresh: bool = False) -> list[Any]:
    """Run ``work(rank, folder)`` in every rank.

    Args:
        work: A function of a module.
        ranks: How many processes.
        folder: Where they meet; it is made.
        fresh: Start an interpreter for each rank, so that sets of strings have another order in each, as they have
            under a launcher; else the ranks are forks of one process that has everything imported.

    Returns:
        The results by rank.
    """
    folder.mkdir(exist_ok=True, parents=True)
    if not fresh:
        forkserver.set_forkserver_preload(list(IMPORTED))
        with place_of_server():
            forkserver.ensure_running()
    start_method = "spawn" if fresh else "forkserver"
    args = (work, ranks, str(folder), dict(os.environ), PACKAGE)
    mp.start_processes(run_rank, args=args, nprocs=ranks, start_method=start_method)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(ranks)]
