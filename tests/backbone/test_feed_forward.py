"""The feed-forward block by its formula, whole and in parts."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sparse_encoder.backbone import feed_forward
from sparse_encoder.backbone.feed_forward import ACTIVATIONS, FeedForward

B, T, D, INNER = 5, 3, 4, 6


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_both_forms_of_an_activation_are_one_function(name: str) -> None:
    x = torch.linspace(-4, 4, 17)
    expected = ACTIVATIONS[name].new(x)
    assert torch.equal(x, torch.linspace(-4, 4, 17))
    changed = x.clone()
    assert torch.equal(ACTIVATIONS[name].in_place(changed), expected)
    assert torch.equal(changed, expected)


def test_the_tanh_form_is_the_formula() -> None:
    x = torch.linspace(-4, 4, 17, dtype=torch.float64)
    formula = 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
    torch.testing.assert_close(ACTIVATIONS["gelu_new"].new(x), formula)
    assert not torch.allclose(ACTIVATIONS["gelu"].new(x), formula, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_plain_and_gated_by_the_formula(bias: bool) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(B, T, D)
    plain = FeedForward(D, INNER, bias=bias)
    expected = plain.down(F.gelu(plain.up(hidden)))
    torch.testing.assert_close(plain(hidden), expected)
    gated = FeedForward(D, INNER, activation="silu", gated=True, bias=bias)
    inner = gated.up(hidden)
    assert inner.shape == (B, T, 2 * INNER)
    torch.testing.assert_close(gated(hidden), gated.down(F.silu(inner[..., :INNER]) * inner[..., INNER:]))


@pytest.mark.parametrize("gated", [True, False])
def test_without_gradients_parts_give_the_same_bits(gated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    block, hidden = FeedForward(32, 48, gated=gated).eval(), torch.randn(7, 16, 32)
    kept = hidden.clone()
    with_gradients = block(hidden).detach()
    calls = []
    block.up.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    for limit, sizes in ((1, [1] * 7), (2 * 16 * 48 * 4 * (2 if gated else 1), [2, 2, 2, 1]), (1 << 30, [7])):
        calls.clear()
        monkeypatch.setattr(feed_forward, "MAX_INNER_BYTES", limit)
        with torch.no_grad():
            assert torch.equal(block(hidden), with_gradients)
        assert calls == sizes
    assert torch.equal(hidden, kept)


def test_gradients_pass_through_whole() -> None:
    block = FeedForward(D, INNER, gated=True).double()
    hidden = torch.randn(2, T, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (hidden,))


def test_dropout_is_in_between_and_in_training_only() -> None:
    block, hidden = FeedForward(D, INNER, dropout=0.5), torch.randn(B, T, D)
    assert not torch.equal(block(hidden), block(hidden))
    block.eval()
    assert torch.equal(block(hidden), block(hidden))
