"""Rows 18 and 36 to 40 of bad_inputs.py: files that change under a model, hubs and caches that fail."""

from __future__ import annotations

import os
import socket
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from checkpoint_helpers import FakeHub, be_the_hub, forget_account, serving, tree_of
from model_helpers import write_masked_language_model

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import MaskedLanguageModel
from sparse_encoder.checkpoint import CheckpointError, LoadError
from sparse_encoder.search import SparseIndex

NAME = "org/model"
TEXT = "rain on the river stone"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write two encoders of different weights."""
    root = tmp_path_factory.mktemp("models")
    for seed in (1, 2):
        plain = write_masked_language_model(root / f"plain{seed}", seed=seed)
        SparseEncoder(str(plain), device="cpu").save_pretrained(str(root / str(seed)))
    return root / "1", root / "2"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Serve an empty hub, beside which no machine is asked anything."""
    forget_account(monkeypatch)
    with serving(FakeHub()) as served:
        be_the_hub(served, monkeypatch)
        connect, port = socket.socket.connect, int(served.url.rpartition(":")[2])

        def watched(self: socket.socket, address: tuple[str, int]) -> None:
            if address[1] != port:
                pytest.fail(f"{address} was asked")
            connect(self, address)

        monkeypatch.setattr(socket.socket, "connect", watched)
        yield served


def opened(cache: Path, *, local_files_only: bool = False) -> SparseEncoder:
    return SparseEncoder(NAME, device="cpu", cache_folder=str(cache), local_files_only=local_files_only)


def numbers(model: SparseEncoder) -> torch.Tensor:
    found = model.encode([TEXT], convert_to_tensor=True).to_dense()
    assert isinstance(found, torch.Tensor) and bool(found.any())
    return found


@pytest.mark.parametrize("how", ["cut", "rewritten", "gone"])
def test_row_18_files_that_change_later_change_nothing(how: str, folders: tuple[Path, Path], tmp_path: Path) -> None:
    expected = numbers(SparseEncoder(str(folders[0]), device="cpu"))
    for name, content in tree_of(folders[0]).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    model = SparseEncoder(str(tmp_path), device="cpu")
    backbone = MaskedLanguageModel.from_pretrained(tmp_path)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            if how == "cut":
                os.truncate(path, 0)  # a mapped file would end the process here
            elif how == "rewritten":
                path.write_bytes(b"\xff" * path.stat().st_size)
            else:
                path.unlink()
    assert torch.equal(numbers(model), expected)
    assert all(bool(torch.isfinite(each).all()) for each in backbone.parameters())


def test_row_18_an_index_is_mapped_only_where_that_is_said(tmp_path: Path) -> None:
    rows = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 1.0]])
    SparseIndex.build(rows).save(tmp_path)
    index = SparseIndex.load(tmp_path, memory_map=False)
    for path in tmp_path.iterdir():
        os.truncate(path, 0)
    assert [hit.id for hit in index.search(torch.tensor([1.0, 0.0, 0.0]))[0]] == ["1"]


def test_row_36_all_files_are_of_one_commit(hub: FakeHub, folders: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = (hub.add(NAME, tree_of(folder)) for folder in folders)
    hub.branches[NAME]["main"] = first
    hub.moves.append((NAME, "main", second))  # as soon as it was looked up
    expected = [numbers(SparseEncoder(str(folder), device="cpu")) for folder in folders]
    assert torch.equal(numbers(opened(tmp_path)), expected[0])
    assert not [path for path in hub.paths() + hub.paths("HEAD") if second in path]
    assert torch.equal(numbers(opened(tmp_path)), expected[1])
    assert not torch.equal(expected[0], expected[1])


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json", "modules.json", "1_SpladePooling/config.json"])
@pytest.mark.parametrize("how", ["cut", "altered", "page"])
def test_row_37_what_was_altered_is_refused_and_not_kept(
    how: str, name: str, hub: FakeHub, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    files = tree_of(folders[0])
    hub.add(NAME, files)
    content = files[name]
    changed = {"cut": content[:-1], "altered": content[:-1] + b"\x7f", "page": b"<html>Sign in</html>"}
    hub.alter[name] = changed[how]
    with pytest.raises(LoadError, match="altered on its way here|cannot be had"):
        opened(tmp_path)
    assert changed[how] not in tree_of(tmp_path).values()
    hub.alter.clear()
    assert torch.equal(numbers(opened(tmp_path)), numbers(SparseEncoder(str(folders[0]), device="cpu")))


def test_row_37_a_captive_portal_is_no_hub(hub: FakeHub, tmp_path: Path) -> None:
    hub.portal = True
    with pytest.raises(LoadError, match="'org/model' cannot be had"):
        opened(tmp_path)
    assert not [content for content in tree_of(tmp_path).values() if b"<html>" in content]


def test_row_38_a_cache_that_is_not_whole_is_named_with_the_command(
    hub: FakeHub, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    hub.add(NAME, tree_of(folders[0]))
    with pytest.raises(LoadError, match=f"hf download org/model --cache-dir {tmp_path}"):
        opened(tmp_path, local_files_only=True)
    assert hub.requests == []
    opened(tmp_path)
    link = next(path for path in tmp_path.rglob(WEIGHTS) if path.is_symlink())
    link.resolve().unlink()
    with pytest.raises(LoadError, match="model.safetensors.*hf download org/model"):
        opened(tmp_path, local_files_only=True)


def test_row_39_disks_that_are_full_and_caches_that_cannot_be_written(
    hub: FakeHub, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, tree_of(folders[0]))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("huggingface_hub.file_download.http_get", full)
        with pytest.raises(LoadError, match="No space left on device"):
            opened(tmp_path / "full")
    assert not [name for name in tree_of(tmp_path / "full") if "snapshots" in name]
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(LoadError, match="'org/model' cannot be had"):
        opened(tmp_path / "file")
    assert numbers(opened(tmp_path / "full")).any()


def test_row_40_tokens_are_not_shown(hub: FakeHub, tmp_path: Path) -> None:
    secret = "-".join(["not", "like", "a", "token"])
    hub.portal = True
    for name in (NAME, f"https://user:{secret}@hub/org/model", f"./none?token={secret}"):
        with pytest.raises((LoadError, ValueError, FileNotFoundError)) as caught:
            SparseEncoder(name, device="cpu", cache_folder=str(tmp_path), token=secret)
        assert secret not in "".join(traceback.format_exception(caught.value)), name


@pytest.mark.parametrize("files", ["pickle", "weights of another"])
def test_rows_1_and_5_hold_for_what_comes_from_the_hub(
    files: str, hub: FakeHub, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    content = tree_of(folders[0])
    if files == "pickle":
        del content[WEIGHTS]
        content["pytorch_model.bin"] = b"cos\nsystem\n(S'touch pwned'\ntR."
    hub.add(NAME, content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if files == "pickle":
            with pytest.raises(CheckpointError, match="weights_only=True"):
                opened(tmp_path)
            return
        opened(tmp_path)
    link = next(path for path in tmp_path.rglob(WEIGHTS) if path.is_symlink())
    link.unlink()
    link.symlink_to(folders[1] / WEIGHTS)
    with pytest.raises(LoadError, match="leads out of the folder|altered"):
        opened(tmp_path, local_files_only=True)
