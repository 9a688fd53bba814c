"""Schedules of torch that a script brings go on from a checkpoint as if the run had never stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.optim import Optimizer, lr_scheduler
from training_helpers import Anything, pairs, splade_loss, tiny_encoder, trainer

SCHEDULES: dict[str, Callable[[Optimizer], Anything]] = {
    "multi step": lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [3, 5]),
    "sequential": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.ConstantLR(optimizer, 0.5, 3), lr_scheduler.MultiStepLR(optimizer, [1, 2])], [3]
    ),
    "plateau": lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0),
}


def run(folder: Path, kind: str) -> Anything:
    model = tiny_encoder()
    loss = splade_loss(model)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-2)
    options = {"eval_strategy": "steps", "eval_steps": 1, "eval_dataset": pairs(4)} if kind == "plateau" else {}
    settings = {"max_steps": 7, "save_strategy": "steps", "save_steps": 2, **options}
    return trainer(folder, model, loss=loss, optimizers=(optimizer, SCHEDULES[kind](optimizer)), **settings)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_resumed_schedule_gives_the_same_rates_and_weights(tmp_path: Path, kind: str) -> None:
    whole, resumed = run(tmp_path / "whole", kind), run(tmp_path / "resumed", kind)
    whole.train()
    resumed.train(resume_from_checkpoint=tmp_path / "whole" / "checkpoint-2")
    rates = [row["learning_rate"] for row in whole.state.log_history if "learning_rate" in row]
    assert len(set(rates)) > 1
    assert [row["learning_rate"] for row in resumed.state.log_history if "learning_rate" in row] == rates
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor)
