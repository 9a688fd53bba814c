"""A metric in two processes equals that of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from distributed_helpers import in_processes
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training_helpers import Anything

from sparse_encoder.training.events.metric import MetricCallback

RANKS, ROWS, WIDTH = 2, 13, 5


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.project = nn.Linear(WIDTH, 3)
        self.batches = 0
        self.fault = ""

    def forward(self, x: Tensor) -> Tensor:
        self.batches += 1
        if self.fault:
            raise RuntimeError(self.fault)
        return self.project(x)[:, : 2 + len(x) % 2]  # the last batch is narrower


def metric(predictions: Anything, labels: Anything) -> dict[str, float]:
    if (labels < 0).any():
        raise ZeroDivisionError("labels are not to be negative")
    order = np.arange(len(labels)) * labels
    return {"order": float(order.sum()), "sum": float(predictions.astype(np.float64).sum()), "rows": len(predictions)}


def data(shift: int = 0) -> TensorDataset:
    return TensorDataset(
        torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(2)), torch.arange(ROWS) - shift
    )


def work(rank: int, folder: str) -> list[object]:
    """Compute metrics in one process; returns them with the batches it has run."""
    torch.manual_seed(rank)
    model = Model()
    results: list[object] = [MetricCallback(metric, data(), batch_size=3).compute(model), model.batches]
    shuffled = DataLoader(data(), batch_size=3, shuffle=True)
    results.append(MetricCallback(metric, shuffled).compute(model, seed=4))
    try:
        MetricCallback(metric, data(shift=1), batch_size=3).compute(model)
    except (ZeroDivisionError, RuntimeError) as reason:
        results.append(str(reason))
    if rank == 1:
        model.fault = "no such row"
    try:
        MetricCallback(metric, data(), batch_size=3).compute(model)
    except RuntimeError as reason:
        results.append(str(reason))
    return results


@pytest.mark.slow
def test_two_processes_share_the_batches_and_know_the_metric_of_one(tmp_path: Path) -> None:
    first, second = in_processes(work, ranks=RANKS, folder=tmp_path)
    alone = MetricCallback(metric, data(), batch_size=3).compute(Model())
    shuffled = MetricCallback(metric, DataLoader(data(), batch_size=3, shuffle=True)).compute(Model(), seed=4)
    assert alone["eval_rows"] == ROWS and alone["eval_order"] == sum(row**2 for row in range(ROWS))
    assert shuffled["eval_order"] != alone["eval_order"]
    assert first[0] == second[0] == alone
    assert first[1] == second[1] == 3  # of five batches; the last turn has one for both
    assert first[2] == second[2] == shuffled
    assert first[3] == "labels are not to be negative"
    assert second[3] == "metric_fn has failed in process 0"
    assert first[4] == "the model has failed in process 1"
    assert second[4] == "no such row"
