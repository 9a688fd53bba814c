"""Attention that scores contents and places apart, against the formula written out pair by pair."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import ceil, log, sqrt

import pytest
import torch
from torch import Tensor, nn

from sparse_encoder.backbone import disentangled
from sparse_encoder.backbone.attention import eager_attention, sdpa_attention
from sparse_encoder.backbone.config import FieldError
from sparse_encoder.backbone.disentangled import (
    DisentangledConfig,
    PositionScores,
    RelativePositions,
    attend_with_scores,
    position_rows,
)

B, H, T, K, D = 3, 2, 7, 4, 8
BOTH = DisentangledConfig(content_to_position=True, position_to_content=True, max_distance=5)
VARIANTS = {
    "every distance": BOTH,
    "buckets": replace(BOTH, num_buckets=4, max_distance=20),
    "a wide table": replace(BOTH, max_distance=90),
    "shared": replace(BOTH, shared_projections=True),
    "keys of places": replace(BOTH, position_to_content=False),
    "queries of places": replace(BOTH, content_to_position=False),
}


def row_by_hand(offset: int, config: DisentangledConfig) -> int:
    """The row that the place of a query less that of a key takes."""
    row, exact = offset, config.num_buckets // 2
    if config.max_distance - 1 > exact > 0 and abs(offset) > exact:
        spread = log(abs(offset) / exact) / log((config.max_distance - 1) / exact)
        row = (ceil(spread * (exact - 1) - 1e-9) + exact) * (1 if offset > 0 else -1)
    return min(max(row + config.span, 0), 2 * config.span - 1)


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(0, 9), (8, 40), (4, 20), (32, 512)])
def test_rows_by_distance(num_buckets: int, max_distance: int) -> None:
    config = replace(BOTH, num_buckets=num_buckets, max_distance=max_distance)
    offsets = torch.arange(-600, 601)
    assert position_rows(offsets, config).tolist() == [row_by_hand(offset, config) for offset in range(-600, 601)]


def test_buckets_wider_than_the_distances_are_rows_of_their_own() -> None:
    config = replace(BOTH, num_buckets=12, max_distance=5)
    assert position_rows(torch.tensor([-90, -13, -12, -4, 0, 4, 11, 12]), config).tolist() == [
        0,
        0,
        0,
        8,
        12,
        16,
        23,
        23,
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_distance", 0),
        ("max_distance", 1 << 30),
        ("num_buckets", 3),
        ("num_buckets", -2),
        ("num_buckets", 1 << 30),
        ("dropout", 1.0),
        ("dropout", -0.1),
    ],
)
def test_a_value_out_of_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(FieldError, match=f"^{field} must .* got {value}"):
        replace(BOTH, **{field: value})


def test_something_must_be_scored() -> None:
    with pytest.raises(FieldError, match="nothing is scored"):
        replace(BOTH, content_to_position=False, position_to_content=False)


def parts(config: DisentangledConfig) -> tuple[RelativePositions, PositionScores, nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    table, scores = RelativePositions(config, D, nn.LayerNorm(D)), PositionScores(config, D)
    return tuple(module.double().eval() for module in (table, scores, nn.Linear(D, D), nn.Linear(D, D)))  # type: ignore[return-value]


def tokens(num_texts: int = B, num_tokens: int = T) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(num_texts, H, num_tokens, K, generator=generator, dtype=torch.float64) for _ in range(3)]


@pytest.mark.parametrize("name", VARIANTS)
def test_the_scores_are_those_of_the_formula(name: str) -> None:
    config = VARIANTS[name]
    table, scores, to_q, to_k = parts(config)
    q, k, v = tokens()
    bias = torch.zeros(B, 1, 1, T, dtype=torch.float64)
    bias[1, ..., 4:] = torch.finfo(torch.float64).min
    rows, row_of = table(T)
    places = scores.project(rows, to_q, to_k, K)
    got = attend_with_scores(
        eager_attention, q * scores.factor, k, v, bias, 0.0,
        score=partial(scores, places=places, row_of=row_of),
    )  # fmt: skip

    whole = table.norm(table.table.weight) if table.norm is not None else table.table.weight
    place_keys = (to_k if config.shared_projections else scores.k or to_k)(whole).view(-1, H, K)
    place_queries = (to_q if config.shared_projections else scores.q or to_q)(whole).view(-1, H, K)
    expected = torch.empty(B, H, T, T, dtype=torch.float64)
    for b, h, i, j in torch.cartesian_prod(*(torch.arange(size) for size in expected.shape)).tolist():
        row, total = row_by_hand(i - j, config), q[b, h, i] @ k[b, h, j]
        if config.content_to_position:
            total = total + q[b, h, i] @ place_keys[row, h]
        if config.position_to_content:
            total = total + place_queries[row, h] @ k[b, h, j]
        expected[b, h, i, j] = total / sqrt(K * config.num_terms)
    torch.testing.assert_close(got, (expected + bias).softmax(dim=-1) @ v, rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_tokens", [1, 2, 5, 9, 40])
def test_short_texts_need_few_rows_and_long_ones_no_more_than_there_are(num_tokens: int) -> None:
    config = VARIANTS["buckets"]
    table = parts(config)[0]
    rows, row_of = table(num_tokens)
    assert len(rows) == min(2 * num_tokens - 1, 2 * config.span)
    assert row_of.shape == (num_tokens, num_tokens)
    whole = table.norm(table.table.weight) if table.norm is not None else table.table.weight
    for i in range(num_tokens):
        for j in range(num_tokens):
            torch.testing.assert_close(rows[row_of[i, j]], whole[row_by_hand(i - j, config)])


def test_texts_are_attended_in_parts_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    table, scores, to_q, to_k = parts(BOTH)
    q, k, v = tokens(num_texts=9, num_tokens=16)
    bias = torch.zeros(9, 1, 1, 16, dtype=torch.float64)
    sizes: list[int] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout: float) -> Tensor:
        sizes.append(bias.nbytes)
        return sdpa_attention(q, k, v, bias, dropout)

    def run() -> Tensor:
        rows, row_of = table(16)
        score = partial(scores, places=scores.project(rows, to_q, to_k, K), row_of=row_of)
        return attend_with_scores(attend, q, k, v, bias, 0.0, score=score)

    with torch.no_grad():
        whole = run()
        monkeypatch.setattr(disentangled, "CPU_SCORE_BYTES", 2 * H * 16 * 16 * 8 + 7)
        assert torch.equal(run(), whole)
    text = H * 16 * 16 * 8
    assert sizes == [9 * text, 2 * text, 2 * text, 2 * text, 2 * text, text]
    run()
    assert sizes[6:] == [9 * text]  # a gradient would need them all


def test_the_table_is_dropped_in_training_only() -> None:
    table, scores, to_q, to_k = parts(replace(BOTH, dropout=0.5))
    rows, _ = table(T)
    assert torch.equal(*(scores.project(rows, to_q, to_k, K).keys for _ in range(2)))
    scores.train()
    assert not torch.equal(*(scores.project(rows, to_q, to_k, K).keys for _ in range(2)))
