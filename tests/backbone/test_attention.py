"""Attention by its formula, and the fused form against it."""

from __future__ import annotations

from math import exp

import pytest
import torch

from sparse_encoder.backbone.attention import (
    ATTENTIONS,
    Attention,
    AttentionContext,
    attention_bias,
    eager_attention,
    sdpa_attention,
)
from sparse_encoder.backbone.rope import rotate, rotation

B, H, T, K = 2, 3, 5, 4
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])


def qkv(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, B, H, T, K, generator=generator).to(dtype)
    return q, k, v


def test_attention_by_hand() -> None:
    q, k = torch.tensor([[[[2.0]]]]), torch.tensor([[[[1.0], [-1.0]]]])
    v = torch.tensor([[[[10.0], [20.0]]]])
    share = exp(2.0) / (exp(2.0) + exp(-2.0 + 1.0))
    got = eager_attention(q, k, v, torch.tensor([[[[0.0, 1.0]]]]), 0.0)
    torch.testing.assert_close(got, torch.tensor([[[[10 * share + 20 * (1 - share)]]]]))


def test_the_bias_hides_padding_and_never_holds_an_infinity() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        bias = attention_bias(MASK, dtype)
        assert bias.shape == (B, 1, 1, T)
        assert bias.dtype == dtype
        assert bias.isfinite().all()
        assert torch.equal(bias[:, 0, 0] == 0, MASK.bool())


def test_the_window_hides_what_is_far() -> None:
    visible = attention_bias(MASK, torch.float32, window=1)[:, 0] == 0
    assert visible.shape == (B, T, T)
    near = [[abs(row - column) <= 1 for column in range(T)] for row in range(T)]
    assert torch.equal(visible[0], torch.tensor(near))
    assert torch.equal(visible[1], torch.tensor(near) & torch.tensor([True, True, False, False, False]))


def test_a_token_sees_itself_only_where_it_would_see_nothing() -> None:
    mask = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])
    visible = attention_bias(mask, torch.float32, causal=True)[:, 0] == 0
    assert visible[0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 0],
    ]
    assert visible[1].int().tolist() == [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 1],
    ]
    assert torch.equal(visible[2], torch.eye(T, dtype=torch.bool))


@pytest.mark.parametrize("num_queries", [1, 2, T])
@pytest.mark.parametrize("window", [0, 1, 3, T - 1, T])
def test_a_causal_window_is_the_largest_distance_too(window: int, num_queries: int) -> None:
    mask = torch.ones(1, T, dtype=torch.long)
    visible = attention_bias(mask, torch.float32, window, causal=True, num_queries=num_queries)[0, 0] == 0
    expected = [[0 <= row - column <= window for column in range(T)] for row in range(T)]
    assert torch.equal(visible.expand(num_queries, T), torch.tensor(expected)[-num_queries:])


@pytest.mark.parametrize("window", [T - 1, T, 100])
def test_a_window_as_wide_as_the_text_hides_nothing(window: int) -> None:
    assert torch.equal(attention_bias(MASK, torch.float32, window), attention_bias(MASK, torch.float32))


@pytest.mark.parametrize("window", [None, 1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 3e-2)])
def test_the_fused_form_equals_the_plain_one(dtype: torch.dtype, tolerance: float, window: int | None) -> None:
    bias = attention_bias(MASK, dtype, window)
    plain, fused = (function(*qkv(dtype=dtype), bias, 0.0) for function in (eager_attention, sdpa_attention))
    seen = MASK.bool()[:, None, :, None].expand_as(plain)  # what padding sees from afar may differ
    torch.testing.assert_close(fused[seen], plain[seen], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_a_text_of_padding_only_stays_finite(name: str) -> None:
    bias = attention_bias(torch.zeros(B, T), torch.float32)
    assert ATTENTIONS[name](*qkv(), bias, 0.0).isfinite().all()


@pytest.mark.parametrize("name", ATTENTIONS)
def test_hidden_places_do_not_count_at_all(name: str) -> None:
    q, k, v = qkv()
    bias = attention_bias(MASK, torch.float32)
    before = ATTENTIONS[name](q, k, v, bias, 0.0)
    k[1, :, 2:], v[1, :, 2:] = 1e4, -1e4
    assert torch.equal(ATTENTIONS[name](q, k, v, bias, 0.0), before)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_dropout_drops_that_share_and_scales_the_rest(name: str) -> None:
    torch.manual_seed(0)
    v = torch.ones(8, 8, 32, 4)
    dropped = ATTENTIONS[name](torch.zeros_like(v), torch.zeros_like(v), v, torch.zeros(8, 1, 1, 32), 0.25)
    assert dropped.std() > 0.05
    torch.testing.assert_close(dropped.mean(), torch.tensor(1.0), rtol=0, atol=0.02)


def test_under_autocast_the_bias_has_the_dtype_of_the_scores() -> None:
    attention = Attention(12, H)
    hidden = torch.randn(B, T, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bias = attention_bias(MASK, hidden.dtype)
        assert bias.dtype == torch.bfloat16
        assert attention(hidden, AttentionContext(bias, None)).isfinite().all()


def test_an_unknown_implementation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown attention 'flash'; choose from \['eager', 'sdpa'\]"):
        Attention(12, H, implementation="flash")


def test_one_matrix_or_three_make_the_same_attention() -> None:
    torch.manual_seed(0)
    three, one = Attention(12, H), Attention(12, H, fused_qkv=True)
    assert one.qkv is not None
    parts = (three.q, three.k, three.v)
    one.load_state_dict(
        {
            "qkv.weight": torch.cat([part.weight for part in parts]),
            "qkv.bias": torch.cat([part.bias for part in parts]),
            "output.weight": three.output.weight,
            "output.bias": three.output.bias,
        }
    )
    hidden, context = torch.randn(B, T, 12), AttentionContext(attention_bias(MASK, torch.float32), None)
    torch.testing.assert_close(one(hidden, context), three(hidden, context))


def test_rotation_by_hand() -> None:
    by = rotation(torch.tensor([0, 1, 2]), 4, theta=100.0)
    assert by.cos.shape == (3, 1, 4)
    angles = torch.tensor([1.0, 0.1])  # 100 ** -0 and 100 ** -(2 / 4)
    vector = torch.tensor([1.0, 2.0, 3.0, 4.0])
    turned = rotate(vector.expand(1, 3, 1, 4), by)[0, :, 0]
    torch.testing.assert_close(turned[0], vector)
    for place in (1, 2):
        cos, sin = (place * angles).cos(), (place * angles).sin()
        torch.testing.assert_close(turned[place, :2], vector[:2] * cos - vector[2:] * sin)
        torch.testing.assert_close(turned[place, 2:], vector[2:] * cos + vector[:2] * sin)


def test_stretched_places_are_places_nearer_to_the_first() -> None:
    stretched = rotation(torch.tensor([0, 2, 4, 8]), 6, theta=100.0, stretch=2.0)
    plain = rotation(torch.tensor([0, 1, 2, 4]), 6, theta=100.0)
    torch.testing.assert_close(stretched.cos, plain.cos, rtol=0, atol=1e-6)
    torch.testing.assert_close(stretched.sin, plain.sin, rtol=0, atol=1e-6)
    unstretched = rotation(torch.tensor([0, 1, 2, 4]), 6, theta=100.0, stretch=1.0)
    assert torch.equal(unstretched.cos, plain.cos) and torch.equal(unstretched.sin, plain.sin)


def test_rotated_scores_depend_on_distance_alone() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 8)
    by = rotation(torch.arange(9), 8, theta=50.0)
    turned_q, turned_k = rotate(q.expand(1, 9, 1, 8), by)[0, :, 0], rotate(k.expand(1, 9, 1, 8), by)[0, :, 0]
    scores = turned_q @ turned_k.mT
    for distance in range(-8, 9):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))


def test_rotation_keeps_the_dtype() -> None:
    by = rotation(torch.arange(5), 4, theta=100.0)
    assert by.cos.dtype == torch.float32
    assert rotate(torch.ones(2, 5, 3, 4, dtype=torch.bfloat16), by).dtype == torch.bfloat16
