"""What a config must hold, however it is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sparse_encoder.backbone.config import FieldError, TransformerConfig
from sparse_encoder.backbone.disentangled import DisentangledConfig

PLAIN = TransformerConfig(
    vocab_size=17, hidden_size=12, num_layers=3, num_heads=2, intermediate_size=20, max_positions=26
)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 0),
        ("hidden_size", -12),
        ("num_layers", -1),
        ("num_layers", 10**6),
        ("num_heads", 0),
        ("num_heads", 5),
        ("intermediate_size", 0),
        ("max_positions", 10**10),
        ("embedding_size", 0),
        ("num_token_types", -1),
        ("local_window", -1),
        ("pad_token_id", 17),
        ("pad_token_id", -1),
        ("norm_eps", 0.0),
        ("norm_eps", -1e-5),
        ("norm_eps", float("nan")),
        ("rotary_theta", float("inf")),
        ("rotary_stretch", 0.0),
        ("rotary_stretch", float("nan")),
        ("gate_layout", "down_up"),
        ("initializer_range", 0.0),
        ("attention_dropout", 2.0),
        ("embedding_dropout", -0.1),
        ("feed_forward_dropout", float("nan")),
        ("feed_forward_output_dropout", 1.0),
        ("activation", "gelu2"),
        ("head_activation", "tanhshrink"),
        ("position_kind", "relative"),
        ("layer_types", ("global",)),
        ("layer_types", ("global", "local", "far")),
        ("layer_order", ()),
        ("layer_order", (0, 3)),
        ("layer_order", (0, -1)),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: Any) -> None:  # noqa: ANN401
    with pytest.raises(FieldError, match=rf"^{field} must") as caught:
        replace(PLAIN, **{field: value})
    assert caught.value.field == field


PLACES = DisentangledConfig(content_to_position=True, position_to_content=False, max_distance=9)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fused_qkv": True}, "come out of one matrix, fused_qkv; got 1"),
        ({"disentangled": PLACES}, "places are scored, disentangled; got 1"),
        ({"pruned_heads": ((), (), ())}, "heads are pruned, pruned_heads; got 1"),
    ],
)
def test_heads_that_share_keys_say_what_they_cannot_go_with(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(FieldError, match=f"^num_kv_heads must be that of num_heads, 2, where .*{reason}$"):
        replace(PLAIN, num_kv_heads=1, **changes)


def test_a_rotated_head_has_an_even_size() -> None:
    with pytest.raises(FieldError, match="even head size for rotary positions, got 3"):
        replace(PLAIN, num_heads=4, position_kind="rotary")


def test_positions_behind_the_padding_need_a_padding_id() -> None:
    with pytest.raises(FieldError, match="pad_token_id must be given"):
        replace(PLAIN, pad_token_id=None, position_kind="after_padding")


def test_activation_names_are_listed() -> None:
    with pytest.raises(FieldError, match=r"one of \['gelu', 'gelu_fast', 'gelu_new', .* got 'mish'"):
        replace(PLAIN, activation="mish")


def test_what_follows_from_the_fields() -> None:
    assert (PLAIN.head_size, PLAIN.word_size, PLAIN.position_offset, PLAIN.max_tokens) == (6, 12, 0, 26)
    assert PLAIN.steps == (0, 1, 2)
    assert PLAIN.layer_type(2) == "global"
    other = replace(
        PLAIN,
        embedding_size=8,
        pad_token_id=1,
        position_kind="after_padding",
        layer_order=(0, 0, 2),
        layer_types=("local", "global", "local"),
    )
    assert (other.word_size, other.position_offset, other.max_tokens) == (8, 2, 26)
    assert other.steps == (0, 0, 2)
    assert other.layer_type(2) == "local"
