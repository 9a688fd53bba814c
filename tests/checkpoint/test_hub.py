"""Downloads with the real client from a hub on this machine (rows 36 to 40 of bad_inputs.py)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint_helpers import FakeHub, entry, floats, forget_account, safetensors_bytes, serving, tree_of

from sparse_encoder.checkpoint import LoadError, fetch_model_folder, read_json, read_tensors, resolve_inside
from sparse_encoder.checkpoint.hub_names import redacted, repository_of

WEIGHTS = safetensors_bytes({"a": entry([2], 0, 8)}, floats(1, 2))
OTHER_WEIGHTS = safetensors_bytes({"a": entry([2], 0, 8)}, floats(3, 4))
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "modules.json": b"[]",
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
    "vocab.txt": b"a\nb\n",
    "1_SpladePooling/config.json": b'{"pooling_strategy": "max"}',
    "2_Dense/model.safetensors": OTHER_WEIGHTS,
    "README.md": b"# A model",
}
NOT_WANTED = {
    "pytorch_model.bin": b"pickle" * 20,
    "tf_model.h5": b"tf",
    "onnx/model.onnx": b"onnx",
    "onnx/config.json": b"{}",
    "model.fp16.safetensors": b"variant",
    "checkpoint-5/model.safetensors": b"training",
    "training_args.bin": b"args",
    "train.py": b"import os",
    ".gitattributes": b"",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Serve an empty hub; no token and no cache of this machine's user is seen."""
    forget_account(monkeypatch)
    with serving(FakeHub()) as served:
        yield served


def test_a_folder_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("the network was touched"))
    assert fetch_model_folder(str(tmp_path)) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m").mkdir()
    assert fetch_model_folder("~/m") == tmp_path / "m"
    monkeypatch.chdir(tmp_path)
    assert fetch_model_folder("m") == Path("m")


def test_what_a_model_needs_is_fetched_and_read(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.add("org/model", FILES | NOT_WANTED)
    folder = fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url)
    assert folder.name == commit
    assert tree_of(folder) == FILES
    assert read_tensors(folder)["a"].tolist() == [1, 2]
    assert read_tensors(folder / "2_Dense")["a"].tolist() == [3, 4]
    assert read_json(resolve_inside(folder, "1_SpladePooling/config.json")) == {"pooling_strategy": "max"}


def test_pickles_are_fetched_where_there_is_nothing_else(hub: FakeHub, tmp_path: Path) -> None:
    files = {
        "config.json": b"{}",
        "pytorch_model.bin": b"root",
        "1_[x]/config.json": b"{}",
        "1_[x]/pytorch_model.bin": b"one",
        "2_Dense/config.json": b"{}",
        "2_Dense/model.safetensors": WEIGHTS,
        "2_Dense/pytorch_model.bin": b"not this one",
        "training_args.bin": b"nor this",
    }
    hub.add("org/model", files)
    found = tree_of(fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url))
    assert sorted(set(files) - set(found)) == ["2_Dense/pytorch_model.bin", "training_args.bin"]


def test_all_files_are_of_one_commit(hub: FakeHub, tmp_path: Path) -> None:
    """The branch moves as soon as it has been looked up."""
    first = hub.add("org/model", FILES)
    second = hub.add("org/model", FILES | {"config.json": b'{"new": 1}', "model.safetensors": OTHER_WEIGHTS})
    hub.branches["org/model"]["main"] = first
    hub.moves.append(("org/model", "main", second))
    folder = fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url)
    assert folder.name == first
    assert tree_of(folder) == FILES
    assert len([path for path in hub.paths() if "/revision/" in path]) == 1
    assert not [path for path in hub.paths() + hub.paths("HEAD") if second in path]
    assert fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url).name == second


def test_branches_tags_and_commits_are_revisions(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.add("org/model", FILES, branch="v1")
    hub.add("org/model", FILES | {"config.json": b"{}"})
    for revision in ("v1", commit):
        folder = fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url, revision=revision)
        assert folder.name == commit
    with pytest.raises(FileNotFoundError, match="'org/model' has no revision 'v2'"):
        fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url, revision="v2")


def test_what_is_in_the_cache_needs_no_network(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/model", FILES)
    folder = fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url)
    hub.requests.clear()
    assert fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url, local_files_only=True) == folder
    assert hub.requests == []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url) == folder
    assert hub.requests == []


def test_a_hub_that_is_down_leaves_the_cache(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    folder = fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=nobody) == folder
    with pytest.raises(LoadError, match="'org/other' cannot be had.*hf download org/other"):
        fetch_model_folder("org/other", cache_folder=tmp_path, endpoint=nobody)


def test_a_cache_that_lacks_files_is_named_with_the_command(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=f"With a connection, run `hf download org/model --cache-dir {tmp_path}`"):
        fetch_model_folder("org/model", cache_folder=tmp_path, local_files_only=True)
    hub.add("org/model", FILES)
    folder = fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url)
    (folder / "model.safetensors").unlink()
    (folder / "vocab.txt").unlink()
    with pytest.raises(LoadError, match="model.safetensors.*vocab.txt.*hf download org/model"):
        fetch_model_folder("org/model", cache_folder=tmp_path, local_files_only=True)


@pytest.mark.parametrize("damage", ["blob", "shard", "config"])
def test_a_snapshot_is_checked_without_the_client_s_list(hub: FakeHub, tmp_path: Path, damage: str) -> None:
    """An older client keeps no list of the files of a commit."""
    shard = "model-00002-of-00002.safetensors"
    index = b'{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "%s"}}' % shard.encode()
    hub.add(
        "org/model",
        {"config.json": b"{}", "model.safetensors.index.json": index, shard: WEIGHTS}
        | {"model-00001-of-00002.safetensors": OTHER_WEIGHTS},
    )
    old = fetch_model_folder("org/model", cache_folder=tmp_path / "old", endpoint=hub.url)
    (tmp_path / "old").rename(tmp_path / "new")  # the client remembers lists by path
    folder = tmp_path / "new" / old.relative_to(tmp_path / "old")
    for listed in (tmp_path / "new").rglob("trees/*.json"):
        listed.unlink()
    lost = {"blob": folder / shard, "shard": folder / shard, "config": folder / "config.json"}[damage]
    if damage == "blob":
        lost.resolve().unlink()
    else:
        lost.unlink()
    message = {"blob": shard, "shard": shard, "config": "config.json or modules.json"}[damage]
    with pytest.raises(LoadError, match=rf"lacks \['{message}'\].*hf download org/model"):
        fetch_model_folder("org/model", cache_folder=tmp_path / "new", local_files_only=True)


@pytest.mark.parametrize("shard", ["/etc/passwd", "../../x.safetensors", "/none"])
def test_a_hostile_index_is_refused_before_it_is_followed(hub: FakeHub, tmp_path: Path, shard: str) -> None:
    index = json.dumps({"weight_map": {"a": shard}}).encode()
    hub.add("org/model", {"config.json": b"{}", "model.safetensors.index.json": index})
    with pytest.raises(LoadError, match="must be relative and stay in its folder"):
        fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("how", ["altered", "truncated"])
def test_an_altered_file_is_refused_and_not_kept(hub: FakeHub, tmp_path: Path, name: str, how: str) -> None:
    hub.add("org/model", FILES)
    content = FILES[name]
    hub.alter[name] = content[:-1] if how == "truncated" else content[:-1] + b"\x7f"
    with pytest.raises(LoadError, match="was altered on its way here.*removed from the cache") as caught:
        fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url)
    assert str(caught.value.path).endswith(name)
    assert hub.alter[name] not in tree_of(tmp_path).values()
    hub.alter.clear()
    assert tree_of(fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url)) == FILES


def test_a_captive_portal_is_no_hub(hub: FakeHub, tmp_path: Path) -> None:
    hub.portal = True
    with pytest.raises(LoadError, match="'org/model' cannot be had"):
        fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url)
    assert not [content for content in tree_of(tmp_path).values() if b"<html>" in content]


def test_two_at_once_get_the_same_files(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    folders: list[Path] = []
    threads = [
        threading.Thread(
            target=lambda: folders.append(fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(folders) == 3
    assert len(set(folders)) == 1
    assert tree_of(folders[0]) == FILES
    assert not list(tmp_path.rglob("*.incomplete"))


def test_a_full_disk_is_one_error_and_no_half_file(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/model", FILES)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(LoadError, match="No space left on device"):
        fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url)
    monkeypatch.undo()
    assert not [name for name in tree_of(tmp_path) if "snapshots" in name]


def test_tokens_open_private_repositories_and_are_never_shown(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/private", FILES)
    hub.private["org/private"] = "hf_abcdefghijklmnop"
    with pytest.raises(FileNotFoundError, match="a private one needs token"):
        fetch_model_folder("org/private", cache_folder=tmp_path, endpoint=hub.url)
    folder = fetch_model_folder("org/private", cache_folder=tmp_path, endpoint=hub.url, token="hf_abcdefghijklmnop")
    assert tree_of(folder) == FILES
    hub.requests.clear()
    hub.portal = True
    secret = "-".join(["not", "like", "a", "token"])
    with pytest.raises(LoadError) as caught:
        fetch_model_folder("org/other", cache_folder=tmp_path, endpoint=hub.url, token=secret)
    assert {token for _, _, token in hub.requests} == {f"Bearer {secret}"}
    assert secret not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(LoadError, match="no token is stored.*hf auth login"):
        fetch_model_folder("org/other", cache_folder=tmp_path, endpoint=hub.url, token=True)


def test_a_gated_repository_says_what_to_do(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    hub.gated.add("org/model")
    with pytest.raises(LoadError, match="'org/model' is gated. Accept its conditions"):
        fetch_model_folder("org/model", cache_folder=tmp_path, endpoint=hub.url)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:secret@hub/org", "https://<token>@hub/org"),
        ("x?token=abc&y=1", "x?token=<token>&y=1"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer <token>"),
        ("use hf_ABCDEFG123 now", "use <token> now"),
        ("nothing to hide: hf_hub", "nothing to hide: hf_hub"),
    ],
)
def test_secrets_are_taken_out_of_texts(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_a_url_is_no_name_and_its_token_is_not_shown() -> None:
    with pytest.raises(FileNotFoundError, match="a repository is called organisation/model") as caught:
        fetch_model_folder("https://user:hf_abcdefghij@huggingface.co/org/model")
    assert "hf_abcdefghij" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("splade-mini", "sparse-encoder/splade-mini"),
        ("org/model", "org/model"),
        ("bert-base-uncased", "bert-base-uncased"),
        ("xlm-roberta-base", "xlm-roberta-base"),
        ("gpt2", "gpt2"),
        ("bert-base-uncased-2", "sparse-encoder/bert-base-uncased-2"),
    ],
)
def test_bare_names(name: str, repository: str) -> None:
    assert repository_of(name) == repository


def test_a_bare_name_is_fetched_from_our_organisation(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("sparse-encoder/tiny", FILES)
    assert tree_of(fetch_model_folder("tiny", cache_folder=tmp_path, endpoint=hub.url)) == FILES


@pytest.mark.parametrize("name", ["a/b/c", "a\\b", "./model", "../model", "/no/where", "~/none", "org/"])
def test_what_can_only_be_a_path_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        fetch_model_folder(name)


def test_other_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file"):
        fetch_model_folder(str(tmp_path / "file"))
    for name in ("", "  "):
        with pytest.raises(ValueError, match="must not be empty"):
            fetch_model_folder(name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="no name of a repository"):
        fetch_model_folder("an organisation/model", cache_folder=tmp_path)


@pytest.mark.parametrize("offline", [False, True])
def test_environment_variables_are_honoured(hub: FakeHub, tmp_path: Path, offline: bool) -> None:
    hub.add("org/model", FILES)
    code = "from sparse_encoder.checkpoint import fetch_model_folder; print(fetch_model_folder('org/model'))"
    command = [sys.executable, "-c", code]
    variables = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": str(int(offline)),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "SENTENCE_TRANSFORMERS_HOME": str(tmp_path / "cache"),
    }
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=120, check=False)
    if offline:
        assert done.returncode == 1
        assert "LoadError: the files of 'org/model' cannot be had" in done.stderr
        assert hub.requests == []
    else:
        assert done.returncode == 0, done.stderr
        folder = Path(done.stdout.strip())
        assert folder.is_relative_to(tmp_path / "cache")
        assert tree_of(folder) == FILES
