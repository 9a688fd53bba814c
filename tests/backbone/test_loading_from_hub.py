"""Models by the name of their repository, with the real client and a hub on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS
from checkpoint_helpers import FakeHub, tree_of
from hub_server import WritableHub, writable_hub
from loading_helpers import WEIGHTS, assert_same, saved
from safetensors.torch import load_file, save_file

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel
from sparse_encoder.checkpoint import CheckpointError, ConfigError, LoadError

NAME = "org/model"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    """Serve an empty hub; no cache of this machine's user is seen."""
    with writable_hub(monkeypatch) as served:
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "saved"


def scaled(folder: Path, by: float, name: str = WEIGHTS) -> None:
    """Make the weights of a folder others."""
    tensors = load_file(folder / WEIGHTS)
    save_file({key: each * by for key, each in tensors.items()}, folder / name, {"format": "pt"})


def files_of(folder: Path, subfolder: str = "") -> dict[str, bytes]:
    return {subfolder + name: content for name, content in tree_of(folder).items()}


def test_all_files_are_of_one_commit_though_the_branch_moves(hub: FakeHub, folder: Path, tmp_path: Path) -> None:
    model = saved(folder)
    first = hub.add(NAME, files_of(folder))
    scaled(folder, 2)
    second = hub.add(NAME, files_of(folder))
    hub.branches[NAME]["main"] = first
    hub.moves.append((NAME, "main", second))
    assert_same(MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path / "cache"), model)
    assert len([path for path in hub.paths() if "/revision/" in path]) == 1
    assert not [path for path in hub.paths() + hub.paths("HEAD") if second in path]
    moved = MaskedLanguageModel.from_pretrained(NAME, cache_dir=str(tmp_path / "cache"))
    assert torch.equal(moved.head.bias, model.head.bias * 2)


def test_branches_and_commits(hub: FakeHub, folder: Path, tmp_path: Path) -> None:
    model = saved(folder)
    commit = hub.add(NAME, files_of(folder), branch="v1")
    hub.add(NAME, {"config.json": b"{}"})
    for revision in ("v1", commit):
        assert_same(MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path / "c", revision=revision), model)
    with pytest.raises(FileNotFoundError, match="no revision 'v2'"):
        MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path / "c", revision="v2")


def test_a_subfolder_is_all_that_is_fetched(hub: FakeHub, folder: Path, tmp_path: Path) -> None:
    model = saved(folder)
    commit = hub.add(NAME, {**files_of(folder, "a/checkpoint-5/"), "config.json": b"{}", WEIGHTS: b"another"})
    loaded = MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path, subfolder="a/checkpoint-5")
    assert_same(loaded, model)
    snapshot = tmp_path / "models--org--model/snapshots" / commit
    assert sorted(tree_of(snapshot)) == ["a/checkpoint-5/config.json", f"a/checkpoint-5/{WEIGHTS}"]
    with pytest.raises(LoadError, match="lacks .'b/config.json or modules.json'"):
        MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path, subfolder="b")
    with pytest.raises(ConfigError, match="must be relative"):
        MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path, subfolder="../x")


def test_a_variant_is_fetched_in_place_of_the_plain_weights(hub: FakeHub, folder: Path, tmp_path: Path) -> None:
    model = saved(folder)
    scaled(folder, 2, "model.fp16.safetensors")
    commit = hub.add(NAME, files_of(folder))
    loaded = MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path, variant="fp16")
    assert torch.equal(loaded.head.bias, model.head.bias * 2)
    snapshot = tmp_path / "models--org--model/snapshots" / commit
    assert sorted(tree_of(snapshot)) == ["config.json", "model.fp16.safetensors"]
    with pytest.raises(CheckpointError, match=r"model\.bf16\.safetensors.*Leave out variant='bf16'"):
        MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path, variant="bf16")
    assert_same(MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path), model)


def test_a_variant_in_shards_beside_plain_shards(hub: FakeHub, folder: Path, tmp_path: Path) -> None:
    model = saved(folder)
    model.save_pretrained(folder, max_shard_size=4000)
    model.save_pretrained(folder, max_shard_size=4000, variant="b")
    hub.add(NAME, files_of(folder))
    assert_same(MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path, variant="b"), model)
    fetched = {path.rsplit("/", 1)[1] for path in hub.paths() if path.endswith(".safetensors")}
    assert fetched and all(name.startswith("model.b-") for name in fetched)
    names = sorted(name for name in files_of(folder) if name.startswith("model.b-"))
    files = files_of(folder)
    del files[names[1]]
    hub.add(NAME, files, branch="lacking")
    with pytest.raises(LoadError, match=f"lacks .'{names[1]}'"):
        MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path / "2", variant="b", revision="lacking")


def test_what_is_in_the_cache_needs_no_network(
    hub: FakeHub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LoadError, match="hf download org/model"):
        MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path, local_files_only=True)
    model = saved(folder)
    hub.add(NAME, files_of(folder))
    MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path)
    hub.requests.clear()
    assert_same(MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path, local_files_only=True), model)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert_same(MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path), model)
    assert hub.requests == []


def test_a_download_can_be_forced(hub: FakeHub, folder: Path, tmp_path: Path) -> None:
    model = saved(folder)
    hub.add(NAME, files_of(folder))
    MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path)
    hub.requests.clear()
    MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path)
    assert not [path for path in hub.paths() if path.endswith(WEIGHTS)]
    assert_same(MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path, force_download=True), model)
    assert len([path for path in hub.paths() if path.endswith(WEIGHTS)]) == 1
    hub.alter[WEIGHTS] = hub.commits[NAME, hub.branches[NAME]["main"]][WEIGHTS][:-4] + b"\0\0\0\0"
    with pytest.raises(LoadError, match="was altered on its way here"):
        MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path, force_download=True)


def test_a_private_repository_needs_its_token(hub: FakeHub, folder: Path, tmp_path: Path) -> None:
    model = saved(folder)
    hub.add(NAME, files_of(folder))
    hub.private[NAME] = "hf_abcdefghij"
    assert_same(MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path, token="hf_abcdefghij"), model)
    for token in (False, None, "hf_wrongwrong"):
        with pytest.raises(FileNotFoundError, match="needs token=") as caught:
            MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path / "other", token=token)
        assert "hf_wrong" not in str(caught.value)


def test_pickles_are_fetched_where_there_is_nothing_else(hub: FakeHub, folder: Path, tmp_path: Path) -> None:
    model = saved(folder)
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    hub.add(NAME, files_of(folder))
    MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path / "both")
    assert not [path for path in hub.paths() if path.endswith(".bin")]
    (folder / WEIGHTS).unlink()
    hub.add(NAME, files_of(folder))
    with pytest.warns(UserWarning, match="sparse-encoder convert"):
        assert_same(MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path / "bin"), model)


def test_only_the_kind_of_file_that_is_asked_for_is_fetched(hub: FakeHub, folder: Path, tmp_path: Path) -> None:
    model = saved(folder)
    torch.save({key: each * 2 for key, each in load_file(folder / WEIGHTS).items()}, folder / "pytorch_model.bin")
    hub.add(NAME, files_of(folder))
    with pytest.warns(UserWarning, match="sparse-encoder convert"):
        loaded = MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path / "bin", use_safetensors=False)
    assert torch.equal(loaded.head.bias, model.head.bias * 2)
    assert not [path for path in hub.paths() if path.endswith(WEIGHTS)]
    (folder / WEIGHTS).unlink()
    hub.add(NAME, files_of(folder))
    hub.requests.clear()
    with pytest.raises(CheckpointError, match="safetensors"):
        MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path / "safe", use_safetensors=True)
    assert not [path for path in hub.paths() if path.endswith(".bin")]


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ({"dtype": "foo"}, ValueError, "unknown dtype 'foo'"),
        ({"attn_implementation": "flash"}, ValueError, "unknown attention 'flash'"),
        ({"key_mapping": {"(": "a"}}, ValueError, "key_mapping must map"),
        ({"key_mapping": {"a": 1}}, ValueError, "key_mapping must map.*1 is no text"),
        ({"key_mapping": ["a"]}, TypeError, "key_mapping must be a mapping of"),
        ({"variant": "../x"}, ValueError, "a variant must be"),
        ({"device_map": [1]}, TypeError, "device_map must be"),
        ({"device_map": "everywhere"}, ValueError, "unknown device"),
        ({"device_map": "disk"}, ValueError, "give an offload_folder"),
        ({"hiden_size": 12}, TypeError, r"MaskedLanguageModel has no arguments \['hiden_size'\]"),
        ({"hidden_size": -1}, ConfigError, "hidden_size"),
    ],
)
def test_options_are_judged_before_weights_are_fetched(
    hub: FakeHub, folder: Path, tmp_path: Path, option: dict[str, Any], error: type[Exception], message: str
) -> None:
    saved(folder)
    hub.add(NAME, files_of(folder))
    with pytest.raises(error, match=message):
        MaskedLanguageModel.from_pretrained(NAME, cache_dir=tmp_path, **option)
    assert not [path for path in hub.paths() if path.endswith(WEIGHTS)]


def test_values_of_the_config_of_a_repository_can_be_replaced(hub: FakeHub, folder: Path, tmp_path: Path) -> None:
    saved(folder)
    hub.add(NAME, files_of(folder))
    loaded = EncoderModel.from_pretrained(NAME, cache_dir=tmp_path, hidden_dropout_prob=0.0)
    assert loaded.config.embedding_dropout == 0.0
    given = {**TINY_CONFIGS["bert"], "hidden_dropout_prob": 0.5}
    assert EncoderModel.from_pretrained(NAME, cache_dir=tmp_path, config=given).config.embedding_dropout == 0.5
    assert json.loads((folder / "config.json").read_text()).get("hidden_dropout_prob") is None


def test_a_repository_that_is_not_there(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'org/none' is neither a folder nor a repository"):
        EncoderModel.from_pretrained("org/none", cache_dir=tmp_path)
    with pytest.raises(ValueError, match="must not be empty"):
        EncoderModel.from_pretrained("", cache_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        EncoderModel.from_pretrained("./none", cache_dir=tmp_path)
