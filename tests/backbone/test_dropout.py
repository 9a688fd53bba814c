from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparse_encoder.backbone import dropout_attention as dropout_attention_file
from sparse_encoder.backbone.dropout import Dropout, dropped_share, keep_mask
from sparse_encoder.backbone.dropout_attention import dropout_attention

B, H, T, K, P = 3, 2, 5, 4, 0.3


def qkv(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(B, H, T, K, dtype=dtype, generator=generator).requires_grad_() for _ in range(3)]


def bias(dtype: torch.dtype = torch.float64) -> Tensor:
    hidden = torch.zeros(B, 1, 1, T, dtype=dtype)
    hidden[1, ..., 3:] = torch.finfo(dtype).min
    return hidden


def by_the_formula(q: Tensor, k: Tensor, v: Tensor, added: Tensor) -> Tensor:
    kept = keep_mask((B, H, T, T), P)
    probabilities = ((q @ k.mT) * K**-0.5 + added).softmax(dim=-1)
    return (probabilities * kept / (1 - dropped_share(P))) @ v


@pytest.mark.parametrize("tile", [1, 2 * H * T * T, 1 << 20])
def test_value_and_gradients_are_those_of_the_formula(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropout_attention_file, "TILE_PROBABILITIES", tile)
    results = []
    for attend in (by_the_formula, lambda *tensors: dropout_attention(*tensors, P)):
        torch.manual_seed(7)
        tensors = qkv()
        attended = attend(*tensors, bias())
        weights = torch.arange(attended.numel(), dtype=torch.float64).view_as(attended).sin()
        results.append([attended, *torch.autograd.grad((attended * weights).sum(), tensors)])
    for got, wanted in zip(*results[::-1], strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_under_autocast_the_result_has_the_dtype_of_the_values() -> None:
    q, k, v = qkv(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attended = dropout_attention(q, k, v.bfloat16(), bias(torch.bfloat16), P)
    assert attended.dtype == torch.bfloat16
    attended.float().sum().backward()
    assert q.grad is not None and q.grad.isfinite().all()


@pytest.mark.parametrize(("share", "drawn"), [(0.1, 6554 / 65536), (0.5, 0.5), (0.9999999, 65535 / 65536)])
def test_a_share_is_drawn_in_steps(share: float, drawn: float) -> None:
    assert dropped_share(share) == drawn


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_mask_keeps_its_share_and_neighbours_are_independent(share: float) -> None:
    torch.manual_seed(0)
    kept = keep_mask((1001, 203), share).double()
    assert kept.shape == (1001, 203)
    assert kept.mean().item() == pytest.approx(1 - share, abs=0.004)
    centred = (kept - kept.mean()).flatten()
    for distance in (1, 2, 3, 4):  # entries out of one random number, and of the next
        correlation = (centred[:-distance] * centred[distance:]).mean() / centred.square().mean()
        assert abs(correlation.item()) < 0.01


def test_dropout_drops_scales_and_sends_the_gradient_through_what_is_kept() -> None:
    torch.manual_seed(0)
    hidden = torch.ones(B, T, 1000, requires_grad=True)
    dropped = Dropout(0.25)(hidden)
    torch.testing.assert_close(dropped.detach().unique(), torch.tensor([0.0, 4 / 3]))
    dropped.sum().backward()
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad, dropped.detach())


def test_dropout_does_nothing_in_evaluation() -> None:
    hidden = torch.randn(B, T)
    assert Dropout(0.5).eval()(hidden) is hidden
    assert Dropout(0.0)(hidden) is hidden


def test_the_same_seed_draws_the_same_mask() -> None:
    torch.manual_seed(3)
    first = keep_mask((B, T), P)
    torch.manual_seed(3)
    assert torch.equal(keep_mask((B, T), P), first)
