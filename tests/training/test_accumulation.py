from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_helpers import pairs, tiny_encoder, trainer

Anything = Any  # a feature


class MeanDistance(nn.Module):
    """A loss that compares no rows with each other: the mean squared distance of the two columns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.offset = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, sentence_features: Iterable[dict[str, Anything]], labels: Tensor | None = None) -> Tensor:
        first, second = (self.model(column)["sentence_embedding"] for column in sentence_features)
        return (first - second + self.offset).square().sum(dim=1).mean()


def weights_after(folder: Path, *, batch_size: int, batches: int, optim: str = "sgd") -> dict[str, Tensor]:
    run = trainer(
        folder,
        tiny_encoder().double(),
        rows=pairs(12),
        loss=MeanDistance,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=batches,
        num_train_epochs=2,
        optim=optim,
        adam_epsilon=1e-3,  # Adam magnifies what is lost of small gradients by up to its inverse
    )
    run.train()
    assert run.state.global_step == 2 * -(-12 // (batch_size * batches))
    return {name: tensor.clone() for name, tensor in run.loss.state_dict().items() if not name.endswith("calls")}


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "sgd"])
@pytest.mark.parametrize(("batch_size", "batches"), [(2, 3), (1, 6), (3, 2)])
def test_small_batches_add_up_to_the_update_of_the_large_one(
    tmp_path: Path, batch_size: int, batches: int, optim: str
) -> None:
    large = weights_after(tmp_path / "large", batch_size=6, batches=1, optim=optim)
    small = weights_after(tmp_path / "small", batch_size=batch_size, batches=batches, optim=optim)
    start = MeanDistance(tiny_encoder().double()).state_dict()
    for name, expected in large.items():
        torch.testing.assert_close(small[name], expected, rtol=1e-12, atol=1e-12)
        assert not torch.equal(expected, start[name])


def test_fewer_batches_at_the_end_of_an_epoch_count_in_full(tmp_path: Path) -> None:
    large = weights_after(tmp_path / "large", batch_size=8, batches=1)
    small = weights_after(tmp_path / "small", batch_size=2, batches=4)  # 4 and 2 batches
    for name, expected in large.items():
        torch.testing.assert_close(small[name], expected, rtol=1e-12, atol=1e-12)
