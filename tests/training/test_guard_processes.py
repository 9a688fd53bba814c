from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_helpers import in_processes
from torch import Tensor, nn
from torch.amp import GradScaler

from sparse_encoder.training.optimization.guard import GuardedUpdate

Result = dict[str, Any]  # weights, counts and scales by name


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))


def updates(net: nn.Module, *, scaled: bool) -> Result:
    """Do five updates, two of them with a gradient that is not finite."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, fused=True)
    scaler = GradScaler("cpu", init_scale=8.0) if scaled else None
    guard = GuardedUpdate(optimizer, max_grad_norm=0.5, scaler=scaler)
    norms = []
    for factor in (1.0, math.nan, 1.0, math.inf, 2.0):
        guard.scale((net(torch.eye(6)[:4]) * factor).square().mean()).backward()
        norm = guard.clip()
        guard.step(norm)
        optimizer.zero_grad()
        norms.append(norm)
    return {"norms": torch.stack(norms), "skipped": list(guard.skipped()), "state": guard.state_dict()}


def weights(net: nn.Module) -> Tensor:
    wholes = [each.full_tensor() if hasattr(each, "full_tensor") else each for each in net.parameters()]
    return torch.cat([each.detach().flatten() for each in wholes])


def sharded(rank: int, folder: str) -> list[Result]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    results = []
    mesh = init_device_mesh("cpu", (2,))
    for scaled in (False, True):
        net = network()
        fully_shard(net, mesh=mesh)
        results.append({**updates(net, scaled=scaled), "weights": weights(net)})
    return results


@pytest.mark.slow
def test_sharded_gradients_are_clipped_left_out_and_scaled_as_whole_ones(tmp_path: Path) -> None:
    ranks = in_processes(sharded, ranks=2, folder=tmp_path)
    for case, scaled in enumerate((False, True)):
        net = network()
        expected = {**updates(net, scaled=scaled), "weights": weights(net)}
        for results in ranks:
            torch.testing.assert_close(results[case]["norms"], expected["norms"], equal_nan=True)
            torch.testing.assert_close(results[case]["weights"], expected["weights"])
            assert results[case]["skipped"] == expected["skipped"] == ([0, 0] if scaled else [0, 2])
            assert results[case]["state"] == expected["state"]
    assert expected["state"]["scale"] == 2.0
