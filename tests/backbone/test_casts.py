"""Casts of trees: by key path, whatever the order, without touching what was given."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS
from torch import Tensor, nn

from sparse_encoder.backbone import MaskedLanguageModel, to_bf16, to_fp16, to_fp32

CASTS = {to_bf16: torch.bfloat16, to_fp16: torch.float16, to_fp32: torch.float32}


def tree() -> dict[str, Any]:
    """Make a tree whose keys are not in alphabetical order."""
    return {
        "z": {"norm": torch.ones(2), "dense": torch.full((3,), 0.1)},
        "a": torch.tensor([0.2], dtype=torch.float64),
        "count": torch.tensor([7]),
        "m": {"b": torch.zeros(1, dtype=torch.bfloat16)},
    }


def dtypes(values: dict[str, Any]) -> dict[str, Any]:
    return {name: dtypes(each) if isinstance(each, dict) else each.dtype for name, each in values.items()}


@pytest.mark.parametrize("cast", CASTS)
def test_floating_tensors_are_cast_in_a_new_tree(cast: Any) -> None:  # noqa: ANN401
    given, wanted = tree(), CASTS[cast]
    result = cast(given)
    assert dtypes(result) == {
        "z": {"norm": wanted, "dense": wanted},
        "a": wanted,
        "count": torch.int64,
        "m": {"b": wanted},
    }
    assert [list(result), list(result["z"])] == [["z", "a", "count", "m"], ["norm", "dense"]]
    assert dtypes(given) == dtypes(tree())
    assert torch.equal(result["z"]["dense"], torch.full((3,), 0.1).to(wanted))


def test_the_mask_goes_by_name_and_not_by_order() -> None:
    mask = {"m": {"b": True}, "count": True, "a": False, "z": {"dense": True, "norm": False}}
    result = to_fp16(tree(), mask)
    assert dtypes(result) == {
        "z": {"norm": torch.float32, "dense": torch.float16},
        "a": torch.float64,
        "count": torch.int64,
        "m": {"b": torch.float16},
    }
    assert dtypes(to_fp16(tree(), lambda name: name == "z.dense" or name == "m.b")) == dtypes(result)


def test_a_mask_must_have_the_same_names_and_hold_booleans() -> None:
    whole = {"z": {"norm": True, "dense": True}, "a": True, "count": True, "m": {"b": True}}
    with pytest.raises(KeyError, match=r"the mask lacks \['z.dense'\]"):
        to_bf16(tree(), {**whole, "z": {"norm": True}})
    with pytest.raises(KeyError, match=r"the tree lacks \['y'\]"):
        to_bf16(tree(), {**whole, "y": True})
    with pytest.raises(KeyError, match=r"the mask lacks \['z.dense', 'z.norm'\]"):
        to_bf16(tree(), {**whole, "z": True})
    with pytest.raises(TypeError, match="must hold true or false, got 1 for a"):
        to_bf16(tree(), {**whole, "a": 1})
    with pytest.raises(TypeError, match="z.norm must be a tensor or a mapping, got list"):
        to_bf16({"z": {"norm": [1.0]}})


def test_what_is_tied_stays_tied() -> None:
    weight = nn.Parameter(torch.rand(3, 4))
    given = {"b": weight, "other": torch.rand(3, 4), "a": {"again": weight.detach()}}
    result = to_fp16(given)
    assert result["b"] is result["a"]["again"] and result["b"].dtype == torch.float16
    assert not result["b"].requires_grad
    assert result["other"] is not result["b"]
    skipped = to_fp16(given, lambda name: name == "other")
    assert skipped["b"] is weight and skipped["a"]["again"].data_ptr() == weight.data_ptr()
    with pytest.raises(ValueError, match="b and a.again are one tensor"):
        to_fp16(given, lambda name: name != "b")


def test_values_that_float16_cannot_hold_are_told() -> None:
    given = {
        "small": torch.tensor([65504.0]),
        "large": torch.tensor([65505.0, 7e4]),
        "none": torch.tensor([float("inf")]),
    }
    with pytest.warns(UserWarning, match=r"values beyond 65504 became infinite as torch.float16, in large$"):
        result = to_fp16(given)
    assert result["large"][1] == float("inf")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_bf16(given)
        to_fp16({name: given[name] for name in ("small", "none")})
        to_fp16({"meta": torch.empty(2, device="meta")})
    with pytest.warns(UserWarning, match=r"beyond 3.40282e\+38 became infinite as torch.float32"):
        to_fp32({"a": torch.tensor([1e300], dtype=torch.float64)})


def test_a_model_casts_its_own_tensors_and_stays_as_it_is() -> None:
    model = MaskedLanguageModel.from_config(TINY_CONFIGS["bert"])
    cast = model.to_bf16()
    assert model.dtype == torch.float32
    assert list(cast) == list(model.state_dict())
    assert {each.dtype for each in cast.values()} == {torch.bfloat16}
    assert cast["head.weight"] is cast["backbone.embeddings.word.weight"]
    kept = model.to_fp16(mask=lambda name: "norm" not in name)
    assert {name for name, each in kept.items() if each.dtype == torch.float32} == {
        name for name in kept if "norm" in name
    }
    assert dtypes(model.to_fp32(tree()))["a"] == torch.float32
    loaded: dict[str, Tensor] = model.to_fp32(cast)
    model.load_state_dict(loaded)
    assert torch.equal(model.head.dense.weight, cast["head.dense.weight"].float())
