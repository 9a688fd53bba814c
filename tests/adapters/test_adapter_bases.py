"""The base of an adapter: what was done to it is saved, what a file names of it is followed only where it may be."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from adapters_helpers import adapted, logits, model_named, randomise_adapters
from checkpoint_helpers import tree_of
from hub_server import writable_hub
from model_helpers import write_masked_language_model
from safetensors.torch import load_file

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import LoraConfig, MaskedLanguageModel
from sparse_encoder.checkpoint import ConfigError

ALONE = {"adapter_config.json", "adapter_model.safetensors"}
WHOLE = {*ALONE, "config.json", "model.safetensors"}


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def named_base(folder: Path) -> str | None:
    name: str | None = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    return name


def name_base(folder: Path, name: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": name}))


def from_folder(folder: Path, dtype: str = "auto") -> MaskedLanguageModel:
    if not folder.exists():
        model_named().save_pretrained(folder)
    return MaskedLanguageModel.from_pretrained(folder, dtype=dtype)


@torch.no_grad()
def move_a_weight(model: MaskedLanguageModel) -> None:
    model.backbone.layers[0].feed_forward.up.weight.data.add_(0.1)  # past torch's counters of versions


def untie(model: MaskedLanguageModel) -> None:
    model.set_output_embeddings(torch.nn.Linear(12, 17))


EDITS: dict[str, Callable[[MaskedLanguageModel], object]] = {
    "trained": move_a_weight,
    "untied": untie,
    "resized": lambda model: model.resize_token_embeddings(20),
    "pruned": lambda model: model.prune_heads({0: [0]}),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_base_that_was_changed_is_written_beside_its_adapter(edit: str, tmp_path: Path) -> None:
    model = from_folder(tmp_path / "base")
    EDITS[edit](model)
    model.add_adapter(LoraConfig(r=2))
    randomise_adapters(model)
    model.save_pretrained(tmp_path / "saved")
    assert files_of(tmp_path / "saved") == WHOLE and named_base(tmp_path / "saved") is None
    assert torch.equal(logits(MaskedLanguageModel.from_pretrained(tmp_path / "saved")), logits(model))


def test_a_base_that_its_files_hold_is_not_written(tmp_path: Path) -> None:
    plain = from_folder(tmp_path / "base")
    copied = from_folder(tmp_path / "base")
    for model, options in ((plain, {}), (copied, {"bias": "all"})):
        model.add_adapter(LoraConfig(r=2, **options))
        randomise_adapters(model)
        model.save_pretrained(tmp_path / "saved")
        assert files_of(tmp_path / "saved") == ALONE and named_base(tmp_path / "saved") == str(tmp_path / "base")
    short = from_folder(tmp_path / "base", dtype="float64")  # the dtype is no change
    short.add_adapter(LoraConfig(r=2))
    short.save_pretrained(tmp_path / "short")
    assert files_of(tmp_path / "short") == ALONE


def test_a_base_whose_files_have_changed_is_written(tmp_path: Path) -> None:
    model = from_folder(tmp_path / "base")
    model.add_adapter(LoraConfig(r=2))
    randomise_adapters(model)
    model_named(seed=5).save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "saved")
    assert torch.equal(logits(MaskedLanguageModel.from_pretrained(tmp_path / "saved")), logits(model))
    (tmp_path / "base" / "config.json").unlink()
    model.save_pretrained(tmp_path / "again")
    assert files_of(tmp_path / "again") == WHOLE


def test_a_base_in_a_folder_of_a_folder_is_named_by_its_whole_path(tmp_path: Path) -> None:
    from_folder(tmp_path / "all" / "one")
    model = MaskedLanguageModel.from_pretrained(tmp_path / "all", subfolder="one")
    model.add_adapter(LoraConfig(r=2))
    model.save_pretrained(tmp_path / "saved")
    assert named_base(tmp_path / "saved") == str(tmp_path / "all" / "one")
    assert model.name_or_path == str(tmp_path / "all" / "one")


def test_a_variant_of_a_base_is_written_beside_its_adapter(tmp_path: Path) -> None:
    model_named().save_pretrained(tmp_path / "base", variant="x")
    model = MaskedLanguageModel.from_pretrained(tmp_path / "base", variant="x")
    model.add_adapter(LoraConfig(r=2))
    randomise_adapters(model)
    model.save_pretrained(tmp_path / "saved")
    assert torch.equal(logits(MaskedLanguageModel.from_pretrained(tmp_path / "saved")), logits(model))


def test_the_commit_of_a_base_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from_folder(tmp_path / "base")
    (tmp_path / "elsewhere" / "org" / "base").mkdir(parents=True)
    with writable_hub(monkeypatch) as hub:
        commit = hub.add("org/base", tree_of(tmp_path / "base"))
        model = MaskedLanguageModel.from_pretrained("org/base", cache_dir=tmp_path / "cache")
        model.add_adapter(LoraConfig(r=2))
        randomise_adapters(model)
        model.save_pretrained(tmp_path / "saved")
        about = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
        assert files_of(tmp_path / "saved") == ALONE
        assert (about["base_model_name_or_path"], about["revision"]) == ("org/base", commit)
        hub.add("org/base", {"config.json": b"{}"})  # what the branch has become since
        monkeypatch.chdir(tmp_path / "elsewhere")  # where a folder is called like the repository
        loaded = MaskedLanguageModel.from_pretrained(tmp_path / "saved", cache_dir=tmp_path / "cache")
        assert torch.equal(logits(loaded), logits(model)) and loaded.source == model.source
        hub.add("org/all", {f"one/{name}": each for name, each in tree_of(tmp_path / "base").items()})
        inner = MaskedLanguageModel.from_pretrained("org/all", subfolder="one", cache_dir=tmp_path / "cache")
        inner.add_adapter(LoraConfig(r=2))
        inner.save_pretrained(tmp_path / "inner")
        assert files_of(tmp_path / "inner") == WHOLE  # no file of an adapter can say of a folder of a repository


PLACES: dict[str, list[str]] = {}


def hook(event: str, arguments: tuple[object, ...]) -> None:
    for place, opened in PLACES.items():
        if event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith(place):
            opened.append(str(arguments[0]))


@cache
def watch() -> None:
    """Install the hook, which stays as long as the process."""
    sys.addaudithook(hook)


def watched(place: Path) -> list[str]:
    """Return a list of what is opened in a folder from now on."""
    watch()
    opened: list[str] = []
    PLACES[str(place)] = opened
    return opened


@pytest.mark.parametrize("name", ["{outside}", "../base", "..", "a/b/c", "~/base", "C:\\base", "\\\\host\\base", " "])
def test_no_file_leads_to_a_folder_outside_its_own(name: str, tmp_path: Path) -> None:
    base = write_masked_language_model(tmp_path / "base")
    model = SparseEncoder(str(base), device="cpu")
    model.add_adapter(LoraConfig(r=2))
    model.save_pretrained(str(tmp_path / "saved"))
    name_base(tmp_path / "saved", name.format(outside=base))
    opened = watched(base)
    message = "field 'base_model_name_or_path': names a folder outside.*load_adapter.*base_model="
    with pytest.raises(ConfigError, match=message):
        SparseEncoder(str(tmp_path / "saved"), device="cpu")
    with pytest.raises(ConfigError, match=message):
        MaskedLanguageModel.from_pretrained(tmp_path / "saved")
    assert not opened
    (base / "config.json").read_bytes()
    assert opened == [str(base / "config.json")]  # or nothing was watched
    PLACES.clear()
    loaded = SparseEncoder(str(tmp_path / "saved"), device="cpu", model_kwargs={"base_model": str(base)})
    assert torch.equal(loaded.encode("rain").to_dense(), model.encode("rain").to_dense())


def test_a_base_in_the_folder_of_its_adapter_is_opened(tmp_path: Path) -> None:
    model = from_folder(tmp_path / "saved" / "base")
    model.add_adapter(LoraConfig(r=2))
    randomise_adapters(model)
    model.save_pretrained(tmp_path / "saved")
    for name in (str(tmp_path / "saved" / "base"), "./base"):
        name_base(tmp_path / "saved", name)
        assert torch.equal(logits(MaskedLanguageModel.from_pretrained(tmp_path / "saved")), logits(model))
    os.symlink(tmp_path, tmp_path / "saved" / "out")
    for name in ("./out", "./base/../../x", f"{tmp_path / 'saved'}/out"):
        name_base(tmp_path / "saved", name)
        with pytest.raises(ConfigError, match=r"leads out of the folder|stay in its folder"):
            MaskedLanguageModel.from_pretrained(tmp_path / "saved")


def test_an_adapter_on_an_adapter_or_on_itself_is_refused_in_words(tmp_path: Path) -> None:
    adapted().save_pretrained(tmp_path / "first")
    model = from_folder(tmp_path / "base")
    model.add_adapter(LoraConfig(r=2))
    model.save_pretrained(tmp_path / "saved")
    for load in (
        lambda: MaskedLanguageModel.from_pretrained(tmp_path / "saved", base_model=tmp_path / "first"),
        lambda: SparseEncoder(str(tmp_path / "saved"), model_kwargs={"base_model": str(tmp_path / "first")}),
    ):
        with pytest.raises(ConfigError, match="is an adapter itself.*merge_and_unload"):
            load()
    for name, message in ((str(tmp_path / "saved"), "names its own folder"), (None, "names no base")):
        name_base(tmp_path / "saved", name)
        with pytest.raises(ConfigError, match=f"{message}.*no model is beside it"):
            MaskedLanguageModel.from_pretrained(tmp_path / "saved")
        with pytest.raises(ConfigError, match=f"{message}.*no model is beside it"):
            SparseEncoder(str(tmp_path / "saved"), device="cpu")


def test_a_base_that_is_not_wanted_is_refused(tmp_path: Path) -> None:
    from_folder(tmp_path / "base")
    with pytest.raises(ValueError, match="base_model is for adapters"):
        MaskedLanguageModel.from_pretrained(tmp_path / "base", base_model=tmp_path / "base")
    with pytest.raises(TypeError, match="base_model must be a name or a path, got int"):
        MaskedLanguageModel.from_pretrained(tmp_path / "base", base_model=3)


def test_a_subfolder_of_an_adapter_stays_in_its_folder(tmp_path: Path) -> None:
    adapted().save_adapter(tmp_path / "a")
    (tmp_path / "b").mkdir()
    model = model_named()
    with pytest.raises(ConfigError, match="stay in its folder"):
        model.load_adapter(tmp_path / "b", adapter_kwargs={"subfolder": "../a"})
    model.load_adapter(tmp_path, adapter_kwargs={"subfolder": "a"})
    assert torch.equal(logits(model), logits(adapted()))


def test_options_that_the_file_of_an_adapter_cannot_follow_are_refused(tmp_path: Path) -> None:
    model = adapted()
    size = sum(each.nbytes for each in model.get_adapter_state_dict().values())
    for options, message in (
        ({"variant": "fp16"}, "variant must be None for an adapter"),
        ({"safe_serialization": False}, "safe_serialization must stay True for an adapter"),
        ({"max_shard_size": size - 1}, f"max_shard_size must be at least {size} bytes"),
        (
            {"state_dict": model_named().state_dict()},
            "state_dict must have all tensors of the adapter 'default'.*lacks 12",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            model.save_pretrained(tmp_path / "saved", **options)
    assert not (tmp_path / "saved").exists()
    model.save_pretrained(tmp_path / "saved", max_shard_size=size)
    assert len(list((tmp_path / "saved").glob("model-*.safetensors"))) > 1  # of the base
    assert load_file(tmp_path / "saved" / "adapter_model.safetensors")


def test_a_model_whose_adapters_are_disabled_is_not_saved_as_if_they_were_not(tmp_path: Path) -> None:
    model = adapted()
    model.disable_adapters()
    with pytest.raises(ValueError, match="the adapters are disabled, and would be active once loaded"):
        model.save_pretrained(tmp_path / "saved")
    model.save_adapter(tmp_path / "adapter")
    model.enable_adapters()
    model.save_pretrained(tmp_path / "saved")
    assert torch.equal(logits(MaskedLanguageModel.from_pretrained(tmp_path / "saved")), logits(model))
