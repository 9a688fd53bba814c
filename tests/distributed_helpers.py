"""Start a function in several processes that form a gloo group, and collect what it returns."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

Work = Callable[[int, str], Any]  # (rank, folder) to anything that torch.load takes as weights


def run_rank(rank: int, work: Work, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
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


def in_processes(work: Work, *, ranks: int, folder: Path) -> list[Any]:
    """Run ``work(rank, folder)`` in every rank; returns the results by rank."""
    folder.mkdir(exist_ok=True, parents=True)
    mp.start_processes(run_rank, args=(work, ranks, str(folder)), nprocs=ranks, start_method="spawn")
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(ranks)]
