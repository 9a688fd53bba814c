from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_helpers import rows_of, tiny_encoder, trainer

Anything = Any  # a feature, an option


class Magnified(nn.Module):
    """A loss whose gradient is multiplied by a factor, by the number of the update."""

    def __init__(self, model: nn.Module, factors: dict[int, float], otherwise: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self.factors, self.otherwise, self.calls = factors, otherwise, 0

    def forward(self, sentence_features: Iterable[dict[str, Anything]], labels: Tensor | None = None) -> Tensor:
        first, second = (self.model(column)["sentence_embedding"] for column in sentence_features)
        factor = self.factors.get(self.calls, self.otherwise)
        self.calls += 1
        return (first.float() - second.float()).square().mean() * factor


def run_of(
    folder: Path, factors: dict[int, float], otherwise: float = 1.0, *, max_steps: int, fp16: bool = True
) -> Anything:
    def loss(model: nn.Module) -> Magnified:
        return Magnified(model, factors, otherwise)

    return trainer(folder, tiny_encoder(), loss=loss, fp16=fp16, max_steps=max_steps, learning_rate=0.5)


def rates_of(run: Anything) -> list[float]:
    return [row["learning_rate"] for row in rows_of(run) if "learning_rate" in row]


def test_the_schedule_waits_where_a_gradient_overflows(tmp_path: Path) -> None:
    run = run_of(tmp_path, {1: math.inf, 2: math.inf}, max_steps=5)
    run.train()
    assert rates_of(run) == pytest.approx([0.5, 0.4, 0.4, 0.4, 0.3])
    assert run.lr_scheduler.last_epoch == 3
    assert run.state.global_step == 5


def test_the_scale_is_found_by_halving(tmp_path: Path) -> None:
    run = run_of(tmp_path, {}, otherwise=1e4, max_steps=20)
    run.train()
    moved = run.lr_scheduler.last_epoch
    assert 0 < moved < 20
    assert rates_of(run)[: 20 - moved] == [0.5] * (20 - moved)
    assert all(torch.isfinite(each).all() for each in run.model.parameters())


@pytest.mark.parametrize(("fp16", "updates"), [(True, 26), (False, 10)])
def test_a_loss_that_stays_nan_ends_the_run_with_the_weights_before(tmp_path: Path, fp16: bool, updates: int) -> None:
    """In float16 only after the scale has been halved from 65,536 to 1, in 16 updates."""
    run = run_of(tmp_path, {}, otherwise=math.nan, fp16=fp16, max_steps=40)
    before = {name: each.clone() for name, each in run.model.named_parameters()}
    with pytest.raises(FloatingPointError, match=r"in 10 updates in a row, by update \d+;"):
        run.train()
    assert all(torch.equal(each, before[name]) for name, each in run.model.named_parameters())
    assert run.state.global_step == updates
