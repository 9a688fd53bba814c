"""Models and tokenizers to a hub on this machine and back, by the real client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub_server import CLIENTS_OWN, TOKEN, WritableHub, writable_hub
from huggingface_hub import ModelCard, snapshot_download
from loading_helpers import assert_same, made
from model_helpers import write_masked_language_model, write_tokenizer

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import LoraConfig, MaskedLanguageModel
from sparse_encoder.checkpoint.hub_push import HubTarget, open_repository, working_folder
from sparse_encoder.tokenizer import Tokenizer

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FILES = [".gitattributes", "README.md", "config.json", SINGLE]
pytestmark = pytest.mark.filterwarnings(CLIENTS_OWN)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WritableHub]:
    monkeypatch.chdir(tmp_path)
    with writable_hub(monkeypatch) as served:
        yield served


def fetched(name: str, folder: Path, revision: str | None = None) -> MaskedLanguageModel:
    path = snapshot_download(name, revision=revision, cache_dir=folder, token=TOKEN)
    return MaskedLanguageModel.from_pretrained(path)


def card_of(hub: WritableHub, name: str = "me/mine", branch: str = "main") -> Any:  # noqa: ANN401 - any data
    return ModelCard(hub.files(name, branch)["README.md"].decode())


def test_a_model_goes_to_the_hub_in_one_commit_and_comes_back_equal(hub: WritableHub, tmp_path: Path) -> None:
    model = made()
    model.add_model_tags(["a", "b"])
    model.add_model_tags("a")
    commit = model.push_to_hub("mine", private=True, token=TOKEN, tags=["b", "c"], commit_description="how")
    assert commit.oid == hub.branches["me/mine"]["main"] and "/me/mine/commit/" in commit.commit_url
    (pushed,) = hub.pushed
    assert (pushed.message, pushed.description) == ("Upload model", "how")
    assert sorted(pushed.files) == FILES
    assert hub.made[0]["visibility"] == "private"
    assert_same(fetched("me/mine", tmp_path / "cache"), model)
    card = card_of(hub)
    assert card.data.to_dict() == {"library_name": "sparse-encoder", "tags": ["a", "b", "c"]}
    assert "# me/mine" in card.text and "`BertForMaskedLM`" in card.text
    compile(card.text.split("```python\n")[1].split("```")[0], "snippet", "exec")
    assert model.model_tags == ["a", "b"]
    assert "tags" not in model.hf_config and list(tmp_path.iterdir()) == [tmp_path / "cache"]


def test_a_repository_that_is_there_keeps_the_text_of_its_readme(hub: WritableHub) -> None:
    readme = "---\nlicense: mit\ntags:\n- old\n---\n\n# Mine\n\nby hand\n"
    hub.add("me/mine", {"README.md": readme.encode()})
    model = made()
    model.push_to_hub("me/mine", token=TOKEN, commit_message="again")
    assert hub.messages() == ["again"]
    assert hub.files("me/mine")["README.md"] == readme.encode() and "README.md" not in hub.pushed[0].changed
    model.push_to_hub("me/mine", token=TOKEN, tags="new")
    card = card_of(hub)
    assert card.data.to_dict() == {"license": "mit", "tags": ["old", "new"]}
    assert card.text.strip() == "# Mine\n\nby hand"


def test_a_branch_is_made_and_main_stays(hub: WritableHub, tmp_path: Path) -> None:
    first, second = made(seed=0), made(seed=1)
    first.push_to_hub("me/mine", token=TOKEN, tags="one")
    second.push_to_hub("me/mine", token=TOKEN, revision="next", tags="two")
    assert_same(fetched("me/mine", tmp_path), first)
    assert_same(fetched("me/mine", tmp_path, "next"), second)
    assert card_of(hub).data.tags == ["one"]
    assert card_of(hub, branch="next").data.tags == ["one", "two"]
    second.push_to_hub("me/mine", token=TOKEN, revision="next")  # which is there now
    assert [commit.branch for commit in hub.pushed] == ["main", "next", "next"]


def test_a_pull_request_leaves_the_branch_alone(hub: WritableHub, tmp_path: Path) -> None:
    first, second = made(seed=0), made(seed=1)
    first.push_to_hub("me/mine", token=TOKEN)
    commit = second.push_to_hub("me/mine", token=TOKEN, create_pr=True, commit_description="better")
    assert (commit.pr_num, commit.pr_revision) == (1, "refs/pr/1")
    assert hub.pushed[-1].description == "better"
    assert_same(fetched("me/mine", tmp_path), first)
    assert_same(fetched("me/mine", tmp_path, "refs/pr/1"), second)
    second.push_to_hub("me/mine", token=TOKEN, revision="refs/pr/1", commit_message="more")
    assert hub.pushed[-1].branch == "refs/pr/1"  # no branch is made for it
    assert set(hub.branches["me/mine"]) == {"main", "refs/pr/1"}


def test_who_may_not_write_can_open_a_pull_request_to_a_branch(hub: WritableHub) -> None:
    hub.add("them/theirs", {".gitattributes": b""})
    hub.add("them/theirs", {".gitattributes": b""}, branch="next")
    hub.read_only = True
    commit = made().push_to_hub("them/theirs", token=TOKEN, create_pr=True, revision="next")
    assert commit.pr_revision == "refs/pr/1"
    missing = HubTarget(repo_id="them/theirs", token=TOKEN, revision="missing")
    with pytest.raises(OSError, match="403"):
        open_repository(missing)
    assert open_repository(replace(missing, create_pr=True))[1] == "them/theirs"


def test_weights_of_an_earlier_upload_that_would_be_read_are_removed(hub: WritableHub, tmp_path: Path) -> None:
    first, second = made(seed=0), made(seed=1)
    first.push_to_hub("me/mine", token=TOKEN)
    hub.add("me/mine", {**hub.files("me/mine"), "onnx/model.safetensors": b"o", "model.fp16.safetensors": b"o"})
    second.push_to_hub("me/mine", token=TOKEN, max_shard_size=4000)
    assert hub.pushed[-1].deleted == [SINGLE]
    assert {"onnx/model.safetensors", "model.fp16.safetensors", INDEX} <= set(hub.files("me/mine"))
    assert_same(fetched("me/mine", tmp_path), second)
    first.push_to_hub("me/mine", token=TOKEN)
    assert INDEX in hub.pushed[-1].deleted and INDEX not in hub.files("me/mine")
    with pytest.warns(UserWarning, match="is a pickle"):
        second.push_to_hub("me/mine", token=TOKEN, safe_serialization=False)
    assert hub.pushed[-1].deleted == [SINGLE]
    assert "pytorch_model.bin" in hub.files("me/mine")


def encoder(folder: Path, seed: int) -> SparseEncoder:
    return SparseEncoder(str(write_masked_language_model(folder, seed=seed)), device="cpu")


def test_an_encoder_takes_the_place_of_the_weights_and_the_adapter_that_were_there(
    hub: WritableHub, tmp_path: Path
) -> None:
    first, second = encoder(tmp_path / "first", 3), encoder(tmp_path / "second", 9)
    first.push_to_hub("me/mine", token=TOKEN)
    kept = {"onnx/model.safetensors": b"o", "model.fp16.safetensors": b"o"}
    hub.add("me/mine", {**hub.files("me/mine"), **kept, "adapter_config.json": b"{}", "adapter_model.bin": b"o"})
    second.save_pretrained(str(tmp_path / "shards"))
    second[0].model.save_pretrained(tmp_path / "shards", max_shard_size=4000)
    second.push_to_hub("me/mine", token=TOKEN, exist_ok=True, local_model_path=str(tmp_path / "shards"))
    assert hub.pushed[-1].deleted == ["adapter_config.json", "adapter_model.bin", SINGLE]
    assert set(kept) <= set(hub.files("me/mine"))
    loaded = SparseEncoder("me/mine", cache_folder=str(tmp_path / "cache"), token=TOKEN, device="cpu")
    assert_same(loaded[0].model, second[0].model)


def test_weights_in_sub_folders_go_with_those_that_replace_them(hub: WritableHub, tmp_path: Path) -> None:
    model = encoder(tmp_path / "first", 3)
    model.save_pretrained(str(tmp_path / "saved"))
    hub.add("me/mine", {f"part/{name}": b"o" for name in ("model.safetensors.index.json", "adapter_config.json")})
    (tmp_path / "saved" / "part").mkdir()
    os.link(tmp_path / "saved" / SINGLE, tmp_path / "saved" / "part" / SINGLE)
    model.push_to_hub("me/mine", token=TOKEN, exist_ok=True, local_model_path=str(tmp_path / "saved"))
    assert hub.pushed[-1].deleted == ["part/adapter_config.json", "part/model.safetensors.index.json"]


def test_a_merged_model_takes_the_place_of_its_adapter(hub: WritableHub, tmp_path: Path) -> None:
    model = made()
    model.add_adapter(LoraConfig(init_lora_weights=False))
    model.push_to_hub("me/mine", token=TOKEN)
    assert "adapter_config.json" in hub.files("me/mine")
    made().save_pretrained(tmp_path / "half", push_to_hub=True, token=TOKEN, variant="half", repo_id="me/mine")
    assert hub.pushed[-1].deleted == []  # the plain weights and their adapter are as they were
    model.merge_and_unload()
    model.push_to_hub("me/mine", token=TOKEN)
    assert hub.pushed[-1].deleted == ["adapter_config.json", "adapter_model.safetensors"]
    assert_same(fetched("me/mine", tmp_path / "cache"), model)


def test_a_size_that_is_none_makes_no_repository(hub: WritableHub) -> None:
    with pytest.raises(ValueError, match="a size must be a number and a unit"):
        made().push_to_hub("me/mine", token=TOKEN, max_shard_size="bad")
    assert hub.made == [] and hub.branches == {}


@pytest.mark.parametrize("use_temp_dir", [None, False])
def test_a_folder_of_that_name_is_saved_into_and_only_what_changed_goes_up(
    hub: WritableHub, tmp_path: Path, use_temp_dir: bool | None
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("private")
    (tmp_path / "mine" / "config.json").write_text("old")
    model = made()
    model.push_to_hub("me/mine", use_temp_dir=use_temp_dir, token=TOKEN)
    assert sorted(hub.files("me/mine")) == FILES
    assert sorted(os.listdir(tmp_path / "mine")) == ["README.md", "config.json", SINGLE, "notes.txt"]
    (tmp_path / "mine" / "README.md").write_text("by hand")
    model.push_to_hub("me/mine", use_temp_dir=True, token=TOKEN)
    assert (tmp_path / "mine" / "README.md").read_text() == "by hand"
    assert card_of(hub).text.strip() != "by hand"


def test_a_folder_of_that_name_is_made_if_it_is_asked_for(hub: WritableHub, tmp_path: Path) -> None:
    made().push_to_hub("me/mine", use_temp_dir=False, token=TOKEN)
    assert sorted(os.listdir(tmp_path / "mine")) == FILES[1:]
    assert working_folder("me/mine", None) == Path("mine") and working_folder("me/other", None) is None
    assert working_folder("me/mine", True) is None and working_folder("other", False) == Path("other")


def test_saving_may_push_what_it_has_written(hub: WritableHub, tmp_path: Path) -> None:
    model = made()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("private")
    model.save_pretrained(tmp_path / "run", push_to_hub=True, token=TOKEN, variant="fp16", tags=["x"], revision="next")
    assert sorted(hub.files("me/run", "next")) == [*FILES[:3], "model.fp16.safetensors"]
    assert card_of(hub, "me/run", "next").data.tags == ["x"]
    model.save_pretrained("run", push_to_hub=True, token=TOKEN, repo_id="me/other", commit_message="by name")
    assert sorted(hub.files("me/other")) == [".gitattributes", "config.json", SINGLE]  # the README here is as it was
    assert hub.messages() == ["Upload model", "by name"]


def test_a_hub_that_refuses_is_an_error_without_the_token(hub: WritableHub) -> None:
    with pytest.raises(OSError, match="401"):
        made().push_to_hub("me/mine", token="hf_wrongwrong")
    hub.broken = True
    with pytest.raises(OSError, match="the disk of the hub is full") as refused:
        made().push_to_hub("me/mine", token=TOKEN)
    assert TOKEN not in str(refused.value)
    assert hub.pushed == []


def test_a_tokenizer_goes_to_the_hub_and_comes_back_equal(hub: WritableHub, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    write_tokenizer(tmp_path / "files")
    tokenizer = Tokenizer.from_pretrained(tmp_path / "files")
    tokenizer.push_to_hub("mine", token=TOKEN, tags=["words"], private=False)
    (pushed,) = hub.pushed
    assert pushed.message == "Upload tokenizer" and hub.made[0]["visibility"] == "public"
    assert sorted(pushed.files) == [".gitattributes", "README.md", "tokenizer.json", "tokenizer_config.json"]
    assert card_of(hub).data.to_dict() == {"library_name": "sparse-encoder", "tags": ["words"]}
    back = Tokenizer.from_pretrained(snapshot_download("me/mine", cache_dir=tmp_path / "cache", token=TOKEN))
    assert back.fingerprint == tokenizer.fingerprint
    made().push_to_hub("mine", token=TOKEN)
    assert {"tokenizer.json", SINGLE} <= set(hub.files("me/mine"))
    tokenizer.push_to_hub("me/mine", token=TOKEN, create_pr=True, commit_message="words", commit_description="why")
    assert (hub.pushed[-1].message, hub.pushed[-1].description, hub.pushed[-1].branch) == ("words", "why", "refs/pr/1")
