from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sparse_encoder.kernels import sum_projection
from sparse_encoder.kernels.activations import ACTIVATIONS

B, T, E, V = 2, 5, 12, 17


def dense(hidden: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, activation: str) -> Tensor:
    active = torch.log1p(torch.relu(torch.nn.functional.linear(hidden, weight, bias)))  # (B, T, V)
    if activation == "log1p_relu":
        active = torch.log1p(active)
    return active.masked_fill(~mask.bool().unsqueeze(2), 0).sum(dim=1)


def batch(dtype: torch.dtype = torch.float64, *, terms: int = V) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(B, T, E, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(terms, E, generator=generator, dtype=torch.float64).to(dtype)
    bias = torch.randn(terms, generator=generator, dtype=torch.float64).to(dtype)
    return hidden, weight, bias, torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 0, 1]])


def test_by_hand() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [-5.0], [100.0]]])
    mask = torch.tensor([[1, 1, 1, 0]])
    once = sum_projection(hidden, torch.tensor([[1.0]]), None, mask, "relu")
    assert once.item() == pytest.approx(math.log(2) + math.log(4))
    twice = sum_projection(hidden, torch.tensor([[1.0]]), None, mask, "log1p_relu")
    assert twice.item() == pytest.approx(math.log1p(math.log(2)) + math.log1p(math.log(4)))


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("terms", [V, 1000])
def test_values_and_gradients_equal_the_dense_ones(activation: str, terms: int) -> None:
    tensors = batch(terms=terms)
    upstream = torch.randn(B, terms, dtype=torch.float64)
    results = []
    for function in (sum_projection, dense):
        inputs = [tensor.clone().requires_grad_() for tensor in tensors[:3]]
        result = function(*inputs, tensors[3], activation)
        result.backward(upstream)
        results.append([result.detach(), *(tensor.grad for tensor in inputs)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("with_bias", [False, True])
def test_gradient_check(activation: str, with_bias: bool) -> None:
    hidden, weight, bias, mask = batch()
    inputs = (hidden.requires_grad_(), weight.requires_grad_(), bias.requires_grad_() if with_bias else None)
    assert torch.autograd.gradcheck(lambda h, w, b: sum_projection(h, w, b, mask, activation), inputs)


def test_padding_never_matters_and_no_token_gives_zero() -> None:
    hidden, weight, bias, _ = batch()
    mask = torch.tensor([[0] * T, [1, 1, 0, 1, 0]])
    filled = hidden.masked_fill(~mask.bool().unsqueeze(2), math.nan).requires_grad_()
    weight.requires_grad_()
    result = sum_projection(filled, weight, bias, mask)
    result.sum().backward()
    torch.testing.assert_close(result.detach(), dense(hidden, weight.detach(), bias, mask, "relu"))
    assert not result[0].any()
    assert filled.grad is not None and weight.grad is not None
    assert torch.isfinite(weight.grad).all()
    assert not filled.grad[~mask.bool()].any()


def test_bfloat16_sums_in_float32() -> None:
    hidden = torch.full((1, 1000, 1), 1.0, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.tensor([[1.0]], dtype=torch.bfloat16, requires_grad=True)
    result = sum_projection(hidden, weight, None, torch.ones(1, 1000))
    assert result.dtype == torch.float32
    assert result.item() == pytest.approx(1000 * math.log(2), rel=1e-6)
    result.sum().backward()
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(500)  # 1000 tokens with slope 1 / (1 + 1)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="log1p_relu"):
        sum_projection(*batch(), "gelu")
