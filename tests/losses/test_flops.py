from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from sparse_encoder.losses import FlopsLoss


def test_flops_matches_the_formula_by_hand() -> None:
    weights = torch.tensor([[1.0, 0.0], [3.0, -2.0]])
    loss = FlopsLoss(nn.Identity()).compute_loss_from_embeddings(weights)
    torch.testing.assert_close(loss, torch.tensor(2.0**2 + 1.0**2))  # means of |w| by column: 2 and 1


def test_a_text_at_the_threshold_counts_as_empty_but_is_counted() -> None:
    weights = torch.tensor([[4.0, 0.0, 0.0], [2.0, 6.0, 0.0]])
    loss = FlopsLoss(nn.Identity(), threshold=1).compute_loss_from_embeddings(weights)
    torch.testing.assert_close(loss, torch.tensor(1.0**2 + 3.0**2))  # the first row is gone, the mean is over two


def test_half_precision_does_not_overflow() -> None:
    weights = torch.full((32, 30522), 3.0, dtype=torch.float16)
    loss = FlopsLoss(nn.Identity()).compute_loss_from_embeddings(weights)
    assert loss.item() == 274_698.0  # in 16 bits this is infinite


@pytest.mark.parametrize("threshold", [-1, float("nan")])
def test_a_threshold_below_zero_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold must be >= 0"):
        FlopsLoss(nn.Identity(), threshold=threshold)


@pytest.mark.parametrize("threshold", ["x", True])
def test_a_threshold_that_is_not_a_number_is_refused(threshold: object) -> None:
    with pytest.raises(TypeError, match=f"threshold must be a number, got {threshold!r}"):
        FlopsLoss(nn.Identity(), **cast(dict[str, Any], {"threshold": threshold}))


def test_model_card_settings() -> None:
    loss = FlopsLoss(nn.Identity(), threshold=5)
    assert loss.get_config_dict() == {"threshold": 5}
    assert "2004.05665" in loss.citation
