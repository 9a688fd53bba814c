from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sparse_encoder.losses import FlopsLoss, SparseMultipleNegativesRankingLoss


class Lookup(nn.Module):
    """Hands out fixed term weights, in the type it is told to."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.calls = 0
        self.dtype = dtype

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        self.calls += 1
        return {"sentence_embedding": features["weights"].to(self.dtype)}


def columns() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [{"weights": torch.rand(2, 17, generator=generator)} for _ in range(3)]


def test_forward_embeds_each_column_once_and_compares_them() -> None:
    model = Lookup()
    loss = SparseMultipleNegativesRankingLoss(model)
    expected = loss.compute_loss_from_embeddings([column["weights"] for column in columns()])
    assert torch.equal(loss(columns()), expected)
    assert model.calls == 3


def test_a_regularizer_used_alone_takes_all_rows_together() -> None:
    rows = torch.cat([column["weights"] for column in columns()])
    torch.testing.assert_close(FlopsLoss(Lookup())(columns()), rows.mean(dim=0).square().sum())


def test_no_column_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one column"):
        SparseMultipleNegativesRankingLoss(Lookup())([])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_embeddings_are_compared_in_float32(dtype: torch.dtype) -> None:
    batch = [{"weights": column["weights"] * 40} for column in columns()]
    loss = SparseMultipleNegativesRankingLoss(Lookup(dtype))(batch)
    rounded = [column["weights"].to(dtype).double() for column in batch]
    expected = SparseMultipleNegativesRankingLoss(nn.Identity()).compute_loss_from_embeddings(rounded)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-4)


def test_autocast_does_not_reach_the_scores() -> None:
    loss = SparseMultipleNegativesRankingLoss(Lookup())
    expected = loss(columns())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(columns()), expected)
