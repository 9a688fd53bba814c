"""An autoencoder, which counts in a buffer what its latents do, trained and resumed in two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_helpers import in_processes
from torch import Tensor, nn
from training_helpers import HIDDEN, VOCABULARY, TinyEncoder, pairs, trainer

from sparse_encoder.losses import CSRLoss, SparseMultipleNegativesRankingLoss
from sparse_encoder.modules import SparseAutoEncoder


class Coded(TinyEncoder):
    """The mean of the words, through an autoencoder with many latents that hardly ever fire."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.project = nn.Linear(1, VOCABULARY)
        self.autoencoder = SparseAutoEncoder(input_dim=HIDDEN, hidden_dim=64, k=2, k_aux=8, dead_threshold=2)

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        dense = self.words(features["input_ids"]).mean(dim=1)  # (B, D)
        return self.autoencoder({**features, "sentence_embedding": dense})


def csr(model: nn.Module) -> CSRLoss:
    return CSRLoss(model, SparseMultipleNegativesRankingLoss(model))


def run(folder: Path, checkpoint: Path | None = None) -> dict[str, Tensor]:
    torch.manual_seed(3)
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 2}
    given = trainer(folder, Coded(), rows=pairs(64), loss=csr, ddp_find_unused_parameters=True, **settings)
    given.train(resume_from_checkpoint=checkpoint)
    return {name: tensor.detach().clone() for name, tensor in given.model.state_dict().items()}


def work(rank: int, folder: str) -> dict[str, dict[str, Tensor]]:
    straight = run(Path(folder) / "straight")
    return {"straight": straight, "resumed": run(Path(folder) / "resumed", Path(folder) / "straight" / "checkpoint-3")}


@pytest.mark.slow
def test_two_processes_agree_and_resume_to_the_bit(tmp_path: Path) -> None:
    first, second = in_processes(work, ranks=2, folder=tmp_path)
    ages = first["straight"]["autoencoder.stats_last_nonzero"]
    assert len(ages.unique()) > 1 and int(ages.max()) == 6
    for other in (second["straight"], first["resumed"], second["resumed"]):
        for name, tensor in first["straight"].items():
            assert torch.equal(tensor, other[name]), name
