"""The feed-forward block by its formula, whole and in parts."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sparse_encoder.backbone import feed_forward
from sparse_encoder.backbone.feed_forward import ACTIVATIONS, FeedForward, GateLayout

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


def test_every_layout_of_the_gate_is_one_function() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(B, T, D)
    layouts = ("gate_up", "up_gate", "split")
    gate_up, up_gate, split = (FeedForward(D, INNER, gated=True, gate_layout=layout) for layout in layouts)
    assert gate_up.gate is None and split.gate is not None
    with torch.no_grad():
        for part in ("weight", "bias"):
            gate, up = getattr(gate_up.up, part).chunk(2)
            getattr(up_gate.up, part).copy_(torch.cat([up, gate]))
            getattr(split.gate, part).copy_(gate)
            getattr(split.up, part).copy_(up)
            for other in (up_gate, split):
                getattr(other.down, part).copy_(getattr(gate_up.down, part))
    expected = gate_up(hidden)
    torch.testing.assert_close(up_gate(hidden), expected)
    torch.testing.assert_close(split(hidden), expected)
    with torch.no_grad():  # computed in place
        for block in (up_gate, split):
            torch.testing.assert_close(block(hidden), expected)


@pytest.mark.parametrize(("bias", "down_bias", "expected"), [(False, True, (False, True)), (True, None, (True, True))])
def test_the_last_matrix_may_have_a_bias_alone(bias: bool, down_bias: bool | None, expected: tuple[bool, bool]) -> None:
    block = FeedForward(D, INNER, gated=True, gate_layout="split", bias=bias, down_bias=down_bias)
    assert (block.up.bias is not None, block.down.bias is not None) == expected
    assert block.gate is not None and (block.gate.bias is not None) == expected[0]


@pytest.mark.parametrize("layout", ["gate_up", "up_gate", "split"])
def test_a_gate_counts_in_the_size_of_parts(layout: GateLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    block, hidden = FeedForward(32, 48, gated=True, gate_layout=layout).eval(), torch.randn(7, 16, 32)
    calls: list[int] = []
    block.up.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    monkeypatch.setattr(feed_forward, "MAX_INNER_BYTES", 2 * 16 * (2 * 48) * 4)
    with torch.no_grad():
        block(hidden)
    assert calls == [2, 2, 2, 1]


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
