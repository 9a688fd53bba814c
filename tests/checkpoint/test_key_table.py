from __future__ import annotations

import pytest
import torch

from sparse_encoder.checkpoint.errors import CheckpointError
from sparse_encoder.checkpoint.key_table import KeyTable, canonical_names

TABLE = KeyTable(
    [
        ("embeddings.word.weight", "tokens.weight"),
        ("layer.{}.dense.weight", "layers.{}.down.weight"),
        ("groups.{}.inner.{}.ffn.bias", "layers.{}.{}.up.bias"),
        ("head.0.weight", "first.weight"),
    ]
)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("embeddings.word.weight", "tokens.weight"),
        ("layer.0.dense.weight", "layers.0.down.weight"),
        ("layer.117.dense.weight", "layers.117.down.weight"),
        ("groups.3.inner.12.ffn.bias", "layers.3.12.up.bias"),
        ("head.0.weight", "first.weight"),
    ],
)
def test_names_go_both_ways(theirs: str, ours: str) -> None:
    assert TABLE.ours(theirs) == ours
    assert TABLE.theirs(ours) == theirs


@pytest.mark.parametrize(
    "name",
    [
        "layer.x.dense.weight",
        "layer.01.dense.weight",
        "layer.-1.dense.weight",
        "layer..dense.weight",
        "layer.1.dense.weight.more",
        "prefix.layer.1.dense.weight",
        "layer.{}.dense.weight",
        "layer.١.dense.weight",
        "embeddingsxword.weight",
        "",
    ],
)
def test_other_names_are_not_known(name: str) -> None:
    assert TABLE.ours(name) is None


def test_an_unknown_name_of_ours_is_an_error() -> None:
    with pytest.raises(ValueError, match="no row for 'layers.1.sideways.weight'"):
        TABLE.theirs("layers.1.sideways.weight")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a.{}", "b")], "same number"),
        ([("a", "b.{}")], "same number"),
        ([("a{}.w", "b{}.w")], "alone between dots"),
        ([("a", "x"), ("a", "y")], "'a' and 'a' could be the same name"),
        ([("a", "x"), ("b", "x")], "'x' and 'x' could be the same name"),
        ([("a.{}", "x.{}"), ("a.0", "y")], "'a.0' and 'a.{}' could be the same name"),
        ([("a.{}.b.1", "x.{}"), ("a.7.b.{}", "y.{}")], "could be the same name"),
    ],
)
def test_a_table_that_is_not_one_to_one_is_refused(rows: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KeyTable(rows)


def test_patterns_that_never_meet_may_stand_side_by_side() -> None:
    table = KeyTable([("a.{}.w", "x.{}"), ("a.b.w", "y"), ("a.{}.w.b", "z.{}"), ("a.01.w", "q")])
    assert [table.ours(name) for name in ("a.1.w", "a.b.w", "a.1.w.b", "a.01.w")] == ["x.1", "y", "z.1", "q"]


def test_wrappers_and_age_are_taken_off_names() -> None:
    tensors = {
        "module._orig_mod.bert.LayerNorm.gamma": torch.ones(1),
        "module._orig_mod.bert.LayerNorm.beta": torch.zeros(2),
        "module._orig_mod.module.weight": torch.ones(3),
    }
    plain = canonical_names(tensors)
    assert list(plain) == ["bert.LayerNorm.weight", "bert.LayerNorm.bias", "module.weight"]
    assert plain["module.weight"] is tensors["module._orig_mod.module.weight"]


def test_a_prefix_that_not_every_name_has_stays() -> None:
    names = {"module.a": torch.ones(1), "b": torch.ones(1), "x.gamma": torch.ones(1)}
    assert list(canonical_names(names)) == list(names)
    assert canonical_names({}) == {}


def test_two_tensors_with_one_name_are_refused() -> None:
    tensors = {"a.LayerNorm.gamma": torch.ones(1), "a.LayerNorm.weight": torch.ones(1)}
    with pytest.raises(CheckpointError, match="two tensors are called 'a.LayerNorm.weight'"):
        canonical_names(tensors)
