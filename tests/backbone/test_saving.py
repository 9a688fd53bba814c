"""save_pretrained: which files there are afterwards, under which names, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS, D, V, batch, randomise
from checkpoint_helpers import tree_of
from loading_helpers import DECODER, WORDS, assert_same, made
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel
from sparse_encoder.checkpoint import read_tensors

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def weights_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin") or "index" in path.name}


def test_files_of_a_small_model(tmp_path: Path) -> None:
    made().save_pretrained(str(tmp_path / "a" / "model"))
    assert sorted(os.listdir(tmp_path / "a" / "model")) == ["config.json", SINGLE]
    config = json.loads((tmp_path / "a/model/config.json").read_text())
    assert config["architectures"] == ["BertForMaskedLM"] and config["dtype"] == "float32"
    with safe_open(tmp_path / "a/model" / SINGLE, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("size", ["4KB", "3.9 kib", 4000, "10kb", 0, "0KB"])
def test_shards_hold_what_the_index_says_and_no_more_than_they_may(tmp_path: Path, size: int | str) -> None:
    model = made()
    model.save_pretrained(tmp_path, max_shard_size=size)
    index = json.loads((tmp_path / INDEX).read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert shards == [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    assert weights_in(tmp_path) == {INDEX, *shards}
    limit = {"4KB": 4000, "3.9 kib": 3993, 4000: 4000, "10kb": 10_000, 0: 0, "0KB": 0}[size]
    for shard in shards:
        tensors = load_file(tmp_path / shard)
        assert {name for name, place in index["weight_map"].items() if place == shard} == set(tensors)
        assert sum(tensor.nbytes for tensor in tensors.values()) <= limit or len(tensors) == 1
    stored = read_tensors(tmp_path)
    if limit == 0:
        assert len(shards) == len(stored)
    assert list(index["weight_map"]) == sorted(index["weight_map"]) and DECODER not in index["weight_map"]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert index["metadata"] == {"total_parameters": parameters, "total_size": 4 * parameters}
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path), model)


OTHERS = ("README.md", "model-foo.safetensors", "model.fp16.safetensors", "adapter_model.safetensors", "optimizer.bin")


@pytest.mark.parametrize(("first", "second"), [("5GB", 4000), (4000, "5GB"), (4000, 7000), (7000, 4000)])
def test_nothing_of_an_earlier_save_is_left_and_other_files_stay(
    tmp_path: Path, first: int | str, second: int | str
) -> None:
    for name in OTHERS:
        (tmp_path / name).write_text(name)
    old, new = made(seed=0), made(seed=1)
    old.save_pretrained(tmp_path, max_shard_size=first)
    new.save_pretrained(tmp_path, max_shard_size=second)
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path), new)
    new.save_pretrained(tmp_path / "fresh", max_shard_size=second)
    fresh = tree_of(tmp_path / "fresh")
    assert tree_of(tmp_path) == {
        **fresh,
        **{f"fresh/{name}": content for name, content in fresh.items()},
        **{name: name.encode() for name in OTHERS},
    }


@pytest.mark.parametrize("first", ["5GB", 4000])
@pytest.mark.parametrize("second", ["5GB", 4000])
@pytest.mark.filterwarnings("ignore:.*pickle.*:UserWarning")
def test_a_pickle_replaces_the_safetensors_that_would_be_read_in_its_place(
    tmp_path: Path, first: int | str, second: int | str
) -> None:
    old, new = made(seed=0), made(seed=1)
    old.save_pretrained(tmp_path, max_shard_size=first)
    new.save_pretrained(tmp_path, max_shard_size=second, safe_serialization=False)
    assert all("pytorch_model" in name for name in weights_in(tmp_path))
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path), new)
    old.save_pretrained(tmp_path, max_shard_size=second, safe_serialization=False)
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path), old)
    new.save_pretrained(tmp_path)
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path), new)  # safetensors win


def test_a_pickle_is_written_with_a_warning_and_by_the_function_given(tmp_path: Path) -> None:
    calls: list[str] = []

    def save(value: object, path: str) -> None:
        calls.append(path)
        torch.save(value, path)

    model = made()
    with pytest.warns(UserWarning, match="is a pickle.*safe_serialization=True") as caught:
        model.save_pretrained(tmp_path, safe_serialization=False, save_function=save)
    assert caught[0].filename == __file__
    assert [Path(path).name for path in calls] == ["pytorch_model.bin"]
    stored = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    assert DECODER not in stored and torch.equal(stored[WORDS], model.head.weight)
    model.save_pretrained(tmp_path, save_function=save)
    assert len(calls) == 1  # not for safetensors


def test_a_view_in_a_pickle_is_not_the_memory_it_looks_into(tmp_path: Path) -> None:
    model = made()
    table = torch.randn(V * 100, D)
    model.backbone.embeddings.word.weight = nn.Parameter(table[:V])
    model.tie_weights()
    with pytest.warns(UserWarning, match="is a pickle"):
        model.save_pretrained(tmp_path, safe_serialization=False)
    assert (tmp_path / "pytorch_model.bin").stat().st_size < table.nbytes


@pytest.mark.parametrize("size", ["5GB", 4000])
def test_variants_lie_beside_each_other(tmp_path: Path, size: int | str) -> None:
    plain, half = made(seed=0), made(seed=1)
    plain.save_pretrained(tmp_path)
    before = (tmp_path / SINGLE).read_bytes()
    half.save_pretrained(tmp_path, variant="fp16", max_shard_size=size)
    found = weights_in(tmp_path) - {SINGLE}
    if size == "5GB":
        assert found == {"model.fp16.safetensors"}
    else:
        assert "model.safetensors.index.fp16.json" in found
        count = len(found) - 1
        assert f"model.fp16-00001-of-{count:05d}.safetensors" in found
    assert (tmp_path / SINGLE).read_bytes() == before
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path), plain)
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path, variant="fp16"), half)
    plain.save_pretrained(tmp_path, variant="fp16")
    assert weights_in(tmp_path) == {SINGLE, "model.fp16.safetensors"}


def test_a_process_that_is_not_the_main_one_writes_nothing(tmp_path: Path) -> None:
    made().save_pretrained(tmp_path / "model", is_main_process=False, push_to_hub=True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine")
    with pytest.raises(FileExistsError, match="is to be a folder and is a file"):
        made().save_pretrained(tmp_path / "model")
    assert tree_of(tmp_path) == {"model": b"mine"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_shard_size": "5"}, ValueError, "a size must be a number and a unit"),
        ({"max_shard_size": -1}, ValueError, "a size must be 0 or more bytes"),
        ({"max_shard_size": 1.5}, TypeError, "a size must be a whole number"),
        ({"variant": "../x"}, ValueError, "a variant must be letters"),
        ({"save_peft_format": False}, ValueError, "save_peft_format must stay True"),
        ({"repo_id": "me/x"}, TypeError, r"\['repo_id'\] are for an upload; pass push_to_hub=True"),
        ({"max_shard_bytes": 5}, TypeError, r"\['max_shard_bytes'\] are for an upload"),
        ({"push_to_hub": True, "max_shard": 5}, TypeError, "save_pretrained knows no argument 'max_shard'"),
        ({"variant": 3}, TypeError, "variant must be a text, as 'fp16', or None, got 3"),
        ({"safe_serialization": 0}, TypeError, "safe_serialization must be True or False, got 0"),
        ({"is_main_process": None}, TypeError, "is_main_process must be True or False, got None"),
        ({"push_to_hub": "no"}, TypeError, "push_to_hub must be True or False, got 'no'"),
        ({"save_function": None}, TypeError, "save_function must be a function, as torch.save, got None"),
        ({"state_dict": [1]}, TypeError, "state_dict must map names to tensors, got list"),
        ({"state_dict": {"head.bias": 1}}, TypeError, "state_dict must map names to tensors, got int for 'head.bias'"),
        ({"state_dict": {"nosuch": torch.ones(2)}}, ValueError, "state_dict has 'nosuch', which is no name of this"),
    ],
)
def test_options_are_checked_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        made().save_pretrained(tmp_path / "model", **options)
    assert list(tmp_path.iterdir()) == []


# Names and ties


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_wrappers_put_before_names_is_taken_out(tmp_path: Path, prefix: str) -> None:
    model, other = made(seed=0), made(seed=1)
    wrapped = {prefix + name: tensor for name, tensor in other.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=wrapped)
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path), other)


def test_a_part_that_is_compiled_is_saved_under_its_own_names(tmp_path: Path) -> None:
    model = made()
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.backbone.layers[1] = torch.compile(model.backbone.layers[1], backend="eager")  # type: ignore[assignment]
    assert any("_orig_mod" in name for name in model.state_dict())
    model.save_pretrained(tmp_path)
    loaded = MaskedLanguageModel.from_pretrained(tmp_path).state_dict()
    assert sorted(loaded) == sorted(plain) and all(torch.equal(loaded[name], plain[name]) for name in plain)


def test_the_config_names_the_dtype_of_what_is_written(tmp_path: Path) -> None:
    model = made()
    model.save_pretrained(tmp_path, state_dict={name: each.bfloat16() for name, each in model.state_dict().items()})
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert MaskedLanguageModel.from_pretrained(tmp_path).dtype == torch.bfloat16
    assert model.hf_config.get("dtype") != "bfloat16" and model.dtype == torch.float32


def test_a_model_whose_values_are_elsewhere_is_not_saved(tmp_path: Path) -> None:
    made().save_pretrained(tmp_path / "model")
    model = MaskedLanguageModel.from_pretrained(
        tmp_path / "model", device_map={"": "disk"}, offload_folder=tmp_path / "disk"
    )
    with pytest.raises(ValueError, match="it is offloaded, or on the meta device; load the model without a"):
        model.save_pretrained(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    model = made()
    model.save_pretrained("~/model")
    assert_same(MaskedLanguageModel.from_pretrained("~/model"), model)
    assert os.listdir(tmp_path) == ["home"]


def test_two_names_that_become_one_are_refused(tmp_path: Path) -> None:
    name, tensor = next(iter(made().state_dict().items()))
    with pytest.raises(ValueError, match="two tensors of state_dict are called"):
        made().save_pretrained(tmp_path, state_dict={name: tensor, "module." + name: tensor.clone()})


def test_a_part_of_the_tensors_may_be_saved(tmp_path: Path) -> None:
    model = made()
    part = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("head.")}
    model.save_pretrained(tmp_path, state_dict=part)
    stored = load_file(tmp_path / SINGLE)
    assert set(stored) == {
        WORDS,  # the decoder's weight, under the name that stands for both
        "cls.predictions.bias",
        *(f"cls.predictions.transform.{part}.{kind}" for part in ("dense", "LayerNorm") for kind in ("weight", "bias")),
    }
    assert torch.equal(stored[WORDS], model.head.weight)
    with pytest.raises(ValueError, match="has 'other.weight', which is no name of this model"):
        model.save_pretrained(tmp_path, state_dict={"other.weight": torch.ones(1)})


@pytest.mark.parametrize("name", [*TINY_CONFIGS, "untied bert"])
def test_tied_weights_are_stored_once_and_untied_ones_twice(tmp_path: Path, name: str) -> None:
    model = MaskedLanguageModel.from_config({**TINY_CONFIGS, **VARIANTS}[name])
    randomise(model)
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / SINGLE)
    words = model.backbone.embeddings.word.weight
    assert sum(tensor.shape == words.shape and torch.equal(tensor, words) for tensor in stored.values()) == 1
    numbers = sum(tensor.numel() for tensor in stored.values())
    extra = V if name == "untied bert" else 0  # its bias under a second name
    assert numbers == sum(parameter.numel() for parameter in model.parameters()) + extra


def test_tied_weights_that_differ_are_not_lost(tmp_path: Path) -> None:
    model = made()
    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path / "equal", state_dict=values)  # copies, as FSDP gathers them
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path / "equal"), model)
    values["head.weight"] += 1
    with pytest.raises(ValueError, match=r"'head.weight' and 'backbone.embeddings.word.weight' are tied .* and differ"):
        model.save_pretrained(tmp_path / "model", state_dict=values)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.filterwarnings("ignore:.*pickle.*:UserWarning")
def test_values_that_no_load_takes_leave_the_save_that_was_there(tmp_path: Path, value: float, safe: bool) -> None:
    model = made()
    model.save_pretrained(tmp_path)
    before = tree_of(tmp_path)
    with torch.no_grad():
        model.head.bias[1] = value
    with pytest.raises(ValueError, match=r"'cls.predictions.bias' has NaN or infinite values"):
        model.save_pretrained(tmp_path, safe_serialization=safe)
    assert tree_of(tmp_path) == before


def test_memory_shared_without_saying_so_is_refused_and_views_beside_each_other_are_not(tmp_path: Path) -> None:
    model = made()
    first, second = model.backbone.layers[0], model.backbone.layers[1]
    names = [name for name, parameter in first.named_parameters() if parameter.shape == (D,)][:2]
    both = torch.randn(2, D)
    for name, row in zip(names, both, strict=True):
        module, _, last = name.rpartition(".")
        setattr(first.get_submodule(module), last, nn.Parameter(row))
    model.save_pretrained(tmp_path / "views")
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path / "views"), model)
    module, _, last = names[0].rpartition(".")
    setattr(second.get_submodule(module), last, getattr(first.get_submodule(module), last))
    with pytest.raises(RuntimeError, match=rf"backbone.layers.0.{names[0]}.* share memory"):
        model.save_pretrained(tmp_path / "shared")
    assert not (tmp_path / "shared").exists()


def test_tensors_that_are_not_contiguous_are_written_by_their_values(tmp_path: Path) -> None:
    model = made()
    weight = model.backbone.embeddings.word.weight
    turned = nn.Parameter(weight.detach().T.contiguous().T)
    assert not turned.is_contiguous()
    model.backbone.embeddings.word.weight = turned
    model.tie_weights()
    model.save_pretrained(tmp_path)
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path), model)


class Generating(MaskedLanguageModel):
    """Has settings of generation, as what can generate does."""

    def files_to_save(self) -> dict[str, dict[str, Any]]:
        return {**super().files_to_save(), "generation_config.json": {"max_new_tokens": 7}}


def test_a_class_may_have_further_files(tmp_path: Path) -> None:
    Generating.from_config(TINY_CONFIGS["bert"]).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {"max_new_tokens": 7}
    EncoderModel.from_config(TINY_CONFIGS["bert"]).save_pretrained(tmp_path / "encoder")
    assert sorted(os.listdir(tmp_path / "encoder")) == ["config.json", SINGLE]


def test_a_full_disk_leaves_the_earlier_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(seed=0).save_pretrained(tmp_path / "model")
    before = tree_of(tmp_path)

    def full(path: Path, tensors: dict[str, Tensor], **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sparse_encoder.checkpoint.writing.write_safetensors", full)
    with pytest.raises(OSError, match="No space left"):
        made(seed=1).save_pretrained(tmp_path / "model", max_shard_size=4000)
    assert tree_of(tmp_path) == before


def test_a_saved_model_answers_as_before(tmp_path: Path) -> None:
    model = made()
    model.save_pretrained(tmp_path, max_shard_size="2KiB")
    features = batch(2, pad=0)
    assert torch.equal(MaskedLanguageModel.from_pretrained(tmp_path)(**features), model(**features))
