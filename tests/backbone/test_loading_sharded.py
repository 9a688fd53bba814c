"""Shards into a model that is there, of this library or any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, randomise
from loading_helpers import BIAS, DENSE, assert_same, change, saved
from safetensors.torch import load_file
from torch import nn

from sparse_encoder.backbone import EncoderModel, LoraConfig, MaskedLanguageModel, ShardedLoad, load_sharded_checkpoint
from sparse_encoder.checkpoint import CheckpointError, write_tensors

INDEX = "model.safetensors.index.json"


class Twins(nn.Module):
    """Two layers, and a third that shares the first one's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 5)
        self.two = nn.BatchNorm1d(4)
        self.three = nn.Linear(3, 5, bias=False)
        self.three.weight = self.one.weight


def shards_of(model: nn.Module, folder: Path) -> None:
    tensors = {name: each for name, each in model.state_dict().items() if name != "three.weight"}
    write_tensors(folder, tensors, max_shard_size=40)
    assert len(list(folder.glob("model-*.safetensors"))) > 2


def test_any_module_gets_copies_of_the_values(tmp_path: Path) -> None:
    source, model = Twins(), Twins().half()
    shards_of(source, tmp_path)
    parameters = dict(model.named_parameters())
    assert load_sharded_checkpoint(model, tmp_path) == ShardedLoad([], [])
    assert dict(model.named_parameters()) == parameters and model.three.weight is model.one.weight
    for name, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[name].to(value.dtype)), name
    assert model.one.weight.dtype == torch.float16


def test_a_model_without_memory_gets_the_tensors_themselves(tmp_path: Path) -> None:
    source = Twins()
    shards_of(source, tmp_path)
    with torch.device("meta"):
        model = Twins()
    load_sharded_checkpoint(model, str(tmp_path))
    assert_same(model, source)
    assert model.three.weight is model.one.weight and model.one.weight.requires_grad


def test_names_that_do_not_match_are_refused_before_anything_is_touched_or_returned(tmp_path: Path) -> None:
    shards_of(Twins(), tmp_path)
    model = nn.Sequential()
    model.one, model.four = nn.Linear(3, 5), nn.Linear(2, 2, bias=False)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    message = r"fit Sequential; 1 missing tensor: four\.weight; 5 unexpected tensors: two\.bias, .*strict=False"
    with pytest.raises(CheckpointError, match=message):
        load_sharded_checkpoint(model, tmp_path)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    found = load_sharded_checkpoint(model, tmp_path, strict=False)
    names = ["bias", "num_batches_tracked", "running_mean", "running_var", "weight"]
    assert found == (["four.weight"], [f"two.{name}" for name in names])
    assert found.missing_keys == ["four.weight"]
    assert not torch.equal(model.one.weight, before["one.weight"])
    assert torch.equal(model.four.weight, before["four.weight"])


@pytest.mark.parametrize("strict", [True, False])
def test_another_shape_is_refused_before_anything_is_touched(strict: bool, tmp_path: Path) -> None:
    shards_of(Twins(), tmp_path)
    model = Twins()
    model.one.bias = nn.Parameter(torch.zeros(7))
    before = model.one.weight.clone()
    with pytest.raises(CheckpointError, match=r"one\.bias is \(5,\), the model has \(7,\)"):
        load_sharded_checkpoint(model, tmp_path, strict)
    assert torch.equal(model.one.weight, before)


def test_the_files_count_and_not_the_index(tmp_path: Path) -> None:
    shards_of(Twins(), tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    shard = index["weight_map"]["one.bias"]
    wrong = {**index, "weight_map": {**index["weight_map"], "ghost": shard}}
    (tmp_path / INDEX).write_text(json.dumps(wrong))
    with pytest.raises(CheckpointError, match=f"are missing from {shard}.*'ghost'"):
        load_sharded_checkpoint(Twins(), tmp_path, strict=False)
    (tmp_path / INDEX).write_text(json.dumps(index))
    (tmp_path / shard).unlink()
    with pytest.raises(CheckpointError, match=f"1 are listed in the index and not there: '{shard}'"):
        load_sharded_checkpoint(Twins(), tmp_path)
    wrong = {**index, "weight_map": {"one.bias": "../x.safetensors"}}
    (tmp_path / INDEX).write_text(json.dumps(wrong))
    with pytest.raises(CheckpointError, match="a shard must be the name of a file beside its index"):
        load_sharded_checkpoint(Twins(), tmp_path)


def test_which_format_is_read(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"neither model\.safetensors\.index\.json nor pytorch_model\.bin\.index\.json"
    ):
        load_sharded_checkpoint(Twins(), tmp_path)
    with pytest.raises(FileNotFoundError):
        load_sharded_checkpoint(Twins(), tmp_path / "none")
    source, other = Twins(), Twins()
    shards_of(source, tmp_path)
    shard = "pytorch_model-00001-of-00001.bin"
    state = {name: each for name, each in other.state_dict().items() if name != "three.weight"}
    torch.save(state, tmp_path / shard)
    index = {"metadata": {}, "weight_map": dict.fromkeys(state, shard)}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    model = Twins()
    load_sharded_checkpoint(model, tmp_path)
    assert_same(model, source)
    load_sharded_checkpoint(model, tmp_path, prefer_safe=False)
    assert_same(model, other)
    (tmp_path / INDEX).unlink()
    load_sharded_checkpoint(Twins(), tmp_path)
    assert_same(model, other)


@pytest.mark.parametrize("name", sorted(TINY_CONFIGS))
def test_models_of_this_library_know_the_names_of_their_files(name: str, tmp_path: Path) -> None:
    source = MaskedLanguageModel.from_config(TINY_CONFIGS[name])
    randomise(source)
    source.save_pretrained(tmp_path, max_shard_size=4000)
    model = MaskedLanguageModel.from_config(TINY_CONFIGS[name], dtype="float64")
    assert load_sharded_checkpoint(model, tmp_path) == ([], [])
    assert_same(model.float(), source)
    assert model.head.weight is model.backbone.embeddings.word.weight


def test_what_a_model_of_this_library_lacks_has_the_names_of_the_files(tmp_path: Path) -> None:
    saved(tmp_path / "one").save_pretrained(tmp_path / "whole", max_shard_size=10**9)
    tensors = load_file(tmp_path / "whole/model.safetensors")
    left = {name: each for name, each in tensors.items() if name not in (DENSE, BIAS)} | {"odd": torch.ones(2)}
    write_tensors(tmp_path / "few", left, max_shard_size=4000)
    model = MaskedLanguageModel.from_config(TINY_CONFIGS["bert"])
    with pytest.raises(CheckpointError, match="2 missing tensors.*1 unexpected tensor: odd"):
        load_sharded_checkpoint(model, tmp_path / "few")
    assert load_sharded_checkpoint(model, tmp_path / "few", strict=False) == (sorted([DENSE, BIAS]), ["odd"])
    encoder = EncoderModel.from_config(TINY_CONFIGS["bert"])
    assert load_sharded_checkpoint(encoder, tmp_path / "few", strict=False) == ([DENSE], ["odd"])


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    shards_of(Twins(), tmp_path)
    shard = json.loads((tmp_path / INDEX).read_text())["weight_map"]["one.bias"]

    change(tmp_path, lambda tensors: tensors.update({"one.bias": torch.full((5,), float("inf"))}), shard)
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        load_sharded_checkpoint(Twins(), tmp_path)
    change(tmp_path, lambda tensors: tensors.update({"one.bias": torch.ones(5), "x": torch.ones(1)}), shard)
    with pytest.raises(CheckpointError, match="where the index does not have them"):
        load_sharded_checkpoint(Twins(), tmp_path)


def test_two_values_for_one_parameter_are_refused(tmp_path: Path) -> None:
    state = Twins().state_dict()
    for meta in (False, True):
        for by in (1.0, 2.0):
            write_tensors(tmp_path, {**state, "three.weight": state["three.weight"] * by}, max_shard_size=40)
            with torch.device("meta" if meta else "cpu"):
                model = Twins()
            if by == 1.0:
                load_sharded_checkpoint(model, tmp_path)
                assert torch.equal(model.three.weight, state["one.weight"]) and model.three.weight is model.one.weight
            else:
                with pytest.raises(CheckpointError, match="'one.weight' and 'three.weight' are one parameter"):
                    load_sharded_checkpoint(model, tmp_path)


def test_a_model_with_adapters_or_no_module_is_refused(tmp_path: Path) -> None:
    model = saved(tmp_path / "one")
    model.save_pretrained(tmp_path / "shards", max_shard_size=4000)
    model.add_adapter(LoraConfig())
    with pytest.raises(ValueError, match=r"the model has adapters \['default'\]"):
        load_sharded_checkpoint(model, tmp_path / "shards", strict=False)
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got dict"):
        load_sharded_checkpoint({}, tmp_path / "shards")  # type: ignore[arg-type]
