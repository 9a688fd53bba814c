"""Attention biases by distance: which row a distance takes, and what is done with masks."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch.nn import functional as F

from sparse_encoder.backbone.config import FieldError
from sparse_encoder.backbone.dropout_attention import dropout_attention
from sparse_encoder.backbone.relative_bias import RelativeBias, RelativeBiasConfig, distance_buckets, where_visible

CPU = torch.device("cpu")


def row_by_hand(offset: int, config: RelativeBiasConfig) -> int:
    """The place of a key less that of its query, sorted into rows one at a time."""
    per_side, exact = config.num_buckets // 2, config.num_buckets // 4
    distance = abs(offset)
    if distance >= exact:
        widened = log(distance / exact) / log(config.max_distance / exact) * (per_side - exact)
        distance = min(exact + int(widened + 1e-9), per_side - 1)
    return distance + (per_side if offset > 0 else 0)


@pytest.mark.parametrize("config", [RelativeBiasConfig(), RelativeBiasConfig(num_buckets=8, max_distance=11)])
def test_rows_by_distance(config: RelativeBiasConfig) -> None:
    rows = distance_buckets(150, config, CPU)
    assert rows[140].tolist() == [row_by_hand(key - 140, config) for key in range(150)]
    assert rows[3].tolist() == [row_by_hand(key - 3, config) for key in range(150)]


@pytest.mark.parametrize("past", [0, 7, 140])
def test_rows_for_the_tokens_of_a_decoder_that_continue_a_past(past: int) -> None:
    config = RelativeBiasConfig(num_buckets=8, max_distance=30, bidirectional=False)

    def row(distance: int) -> int:
        widened = log(max(distance, 4) / 4) / log(30 / 4) * 4
        return max(distance, 0) if distance < 4 else min(4 + int(widened + 1e-9), 7)

    rows = distance_buckets(3, config, CPU, num_keys=past + 5, past=past)
    assert rows.shape == (3, past + 5)
    for query in range(3):
        assert rows[query].tolist() == [row(past + query - key) for key in range(past + 5)]


def test_rows_of_a_part_are_a_part_of_all_rows() -> None:
    for both in (True, False):
        config = RelativeBiasConfig(num_buckets=8, max_distance=11, bidirectional=both)
        whole = distance_buckets(40, config, CPU)
        for past, num_queries in ((0, 3), (12, 1), (30, 10)):
            part = distance_buckets(num_queries, config, CPU, num_keys=40, past=past)
            assert torch.equal(part, whole[past : past + num_queries])


def test_the_first_and_the_last_rows() -> None:
    rows = distance_buckets(200, RelativeBiasConfig(), CPU)
    assert rows[0, :10].tolist() == [0, 17, 18, 19, 20, 21, 22, 23, 24, 24]
    assert rows[:10, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8]
    assert (rows[0, 128:] == 31).all() and (rows[128:, 0] == 15).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_buckets", 6), ("num_buckets", 0), ("num_buckets", 1 << 20), ("max_distance", 8), ("max_distance", 1 << 30)],
)
def test_a_table_out_of_range_is_refused(field: str, value: int) -> None:
    with pytest.raises(FieldError, match=f"^{field} must .* got {value}"):
        RelativeBiasConfig(**{field: value})


def test_a_table_of_a_decoder_ends_behind_its_distances_with_rows_of_their_own() -> None:
    assert RelativeBiasConfig(num_buckets=8, max_distance=3).num_exact == 2
    with pytest.raises(FieldError, match="^max_distance must be above 4 and .* got 4"):
        RelativeBiasConfig(num_buckets=8, max_distance=4, bidirectional=False)


def test_biases_stand_where_a_token_may_look_and_the_mask_elsewhere() -> None:
    module = RelativeBias(RelativeBiasConfig(num_buckets=4, max_distance=5), num_heads=3)
    hidden = torch.finfo(torch.float16).min
    mask = torch.tensor([[0.0, 0.0, hidden], [0.0, hidden, hidden]], dtype=torch.float16)[:, None, None]
    with torch.no_grad():
        module.table.weight.copy_(torch.arange(12.0).view(4, 3) - 20)
        bias = module(mask)
    assert bias.shape == (2, 3, 3, 3) and bias.dtype == torch.float16
    assert bias[0, 1].tolist() == [[-19, -10, hidden], [-16, -19, hidden], [-16, -16, hidden]]
    assert bias[1, 2, :, 0].tolist() == [-18, -15, -15]
    assert bias.isfinite().all()  # a sum of both would not be


def test_the_row_of_a_decoders_last_token_is_that_of_the_whole_text() -> None:
    config = RelativeBiasConfig(num_buckets=8, max_distance=11, bidirectional=False)
    module = RelativeBias(config, num_heads=3)
    hidden = torch.finfo(torch.float32).min
    with torch.no_grad():
        module.table.weight.copy_(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))
        whole = module(torch.zeros(2, 1, 9, 9).masked_fill_(torch.ones(9, 9).triu(1).bool(), hidden))
        last = module(torch.zeros(2, 1, 1, 9), num_queries=1, past=8)
        tail = torch.tensor([0.0] * 9 + [hidden] * 3).view(1, 1, 1, 12)  # a cache with room for three more
        longer = module(tail, num_queries=1, past=8)
    assert torch.equal(last, whole[:, :, 8:])
    assert torch.equal(longer[..., :9], last[:1]) and (longer[..., 9:] == hidden).all()
    assert whole[0, 1, 0].tolist() == [module.table.weight[0, 1].item()] + [hidden] * 8


def test_hidden_places_give_no_gradient() -> None:
    scores = torch.zeros(2, 2, requires_grad=True)
    where_visible(scores, torch.tensor([[[[0.0, -9.0], [0.0, 0.0]]]])).sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[1.0, 0.0], [1.0, 1.0]]


@pytest.mark.parametrize("shape", [(3, 2, 5, 5), (3, 1, 5, 5), (3, 1, 1, 5)])
def test_attention_with_dropout_gives_the_bias_its_gradient(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 2, 5, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    bias = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.randn(3, 2, 5, 4, generator=generator, dtype=torch.float64)

    def gradient(dropout: float) -> torch.Tensor:
        torch.manual_seed(1)
        (result,) = torch.autograd.grad((dropout_attention(q, k, v, bias, dropout) * weights).sum(), bias)
        return result

    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    (expected,) = torch.autograd.grad((attended * weights).sum(), bias)
    torch.testing.assert_close(gradient(1e-9), expected, rtol=0, atol=1e-12)  # nothing is dropped

    def value(changed: torch.Tensor) -> float:
        torch.manual_seed(1)
        return (dropout_attention(q, k, v, changed, 0.5) * weights).sum().item()

    step = torch.zeros_like(bias)
    step[1, 0, 0, 2] = 1e-6
    slope = (value(bias.detach() + step) - value(bias.detach() - step)) / 2e-6
    assert gradient(0.5)[1, 0, 0, 2].item() == pytest.approx(slope, abs=1e-7)
