from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_encoder.checkpoint import WeightNames, set_of


def test_names_are_those_of_the_hub() -> None:
    plain, variant = WeightNames(), WeightNames(variant="fp16")
    assert (plain.single, plain.index) == ("model.safetensors", "model.safetensors.index.json")
    assert plain.pattern.format(suffix="-00001-of-00008") == "model-00001-of-00008.safetensors"
    assert (variant.single, variant.index) == ("model.fp16.safetensors", "model.safetensors.index.fp16.json")
    assert variant.pattern.format(suffix="-00001-of-00008") == "model.fp16-00001-of-00008.safetensors"
    pickled = WeightNames("bin", "fp16")
    assert (pickled.single, pickled.index) == ("pytorch_model.fp16.bin", "pytorch_model.bin.index.fp16.json")


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
@pytest.mark.parametrize("variant", [None, "fp16", "non_ema", "int8-v2", "safetensors", "index", "00001-of-00002x"])
def test_every_name_of_a_set_tells_its_set(ending: str, variant: str | None) -> None:
    names = WeightNames(ending, variant)
    for name in (names.single, names.index, names.pattern.format(suffix="-00012-of-00034")):
        assert set_of(name) == names, name


@pytest.mark.parametrize(
    "name",
    [
        "model-foo.safetensors",
        "model.bin",
        "pytorch_model.safetensors",
        "model-1-of-2.safetensors",
        "model.safetensors.backup",
        "my_model.safetensors",
        "model.a.b.safetensors",
        "model.safetensors.index.fp16.json.tmp",
        "adapter_model.safetensors",
        "config.json",
    ],
)
def test_other_files_are_of_no_set(name: str) -> None:
    assert set_of(name) is None


@pytest.mark.parametrize("variant", ["", "a.b", "../x", "fp16 ", "-a", "x-00001-of-00002", "é"])
def test_a_variant_that_could_not_be_told_from_other_parts_is_refused(variant: str) -> None:
    with pytest.raises(ValueError, match="a variant must be letters, digits"):
        WeightNames(variant=variant)


def test_an_unknown_ending_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown ending 'h5'"):
        WeightNames("h5")


def test_a_pickle_makes_safetensors_of_its_variant_outdated_and_not_the_reverse() -> None:
    assert WeightNames("bin", "x").outdated == (WeightNames("bin", "x"), WeightNames("safetensors", "x"))
    assert WeightNames(variant="x").outdated == (WeightNames(variant="x"),)


@given(st.from_regex(r"(pytorch_)?model[.a-z0-9-]{0,40}\.(safetensors|bin)(\.index(\.[a-z0-9-]{1,9})?\.json)?"))
def test_a_name_that_is_of_a_set_is_one_of_its_names(name: str) -> None:
    found = set_of(name)
    if found is not None:
        beginning, ending = found.pattern.split("{suffix}")
        assert name in (found.single, found.index) or (name.startswith(beginning) and name.endswith(ending))
