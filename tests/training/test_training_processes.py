"""The trainer in two processes."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from training_helpers import digest, pairs, tiny_encoder, trainer

RANKS, UPDATES = 2, 4


def run_rank(rank: int, folder: str) -> None:
    """Train in one process, all updates and then again from the second, and save weights and mean loss."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    os.environ |= {
        "LOCAL_WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
    }  # not listened on
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=RANKS)
    options = {"max_steps": UPDATES, "save_strategy": "steps", "save_steps": 2}
    results = []
    for name, checkpoint in (("straight", None), ("resumed", Path(folder) / "straight" / "checkpoint-2")):
        run = trainer(Path(folder) / name, tiny_encoder(dropout=0.3), rows=pairs(21), **options)
        assert run.accelerator.num_processes == RANKS
        output = run.train(resume_from_checkpoint=checkpoint)
        assert output.global_step == UPDATES
        results.append((output.training_loss, digest(run.model)))
    torch.save(results, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


def without_counter(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if name != "calls"}


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights_and_resume_to_them(tmp_path: Path) -> None:
    mp.start_processes(run_rank, args=(str(tmp_path),), nprocs=RANKS, start_method="spawn")
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS))
    expected = without_counter(first[0][1])
    assert any(not torch.equal(tensor, tiny_encoder().state_dict()[name]) for name, tensor in expected.items())
    for loss, weights in (*first, *second):
        assert math.isfinite(loss) and loss > 0
        assert [name for name, tensor in expected.items() if not torch.equal(tensor, weights[name])] == []
