"""Which files of a folder are read, and that an index and its shards agree (rows 1 to 9 of bad_inputs.py)."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sparse_encoder.checkpoint import CheckpointError, canonical_names, read_tensors
from sparse_encoder.cli.main import main

INDEX = "model.safetensors.index.json"
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Return a folder of two shards and their index, as the hub has them."""
    save_file({"a": torch.ones(2), "b": torch.zeros(3)}, tmp_path / ONE)
    save_file({"c": torch.full((4,), 2.0)}, tmp_path / TWO)
    put_index(tmp_path, {"a": ONE, "b": ONE, "c": TWO})
    return tmp_path


def put_index(folder: Path, weight_map: object) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": weight_map}))


def test_shards_are_read_together(sharded: Path) -> None:
    found = read_tensors(sharded)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {"a": [1, 1], "b": [0, 0, 0], "c": [2, 2, 2, 2]}


def test_the_single_file_comes_first(sharded: Path) -> None:
    save_file({"x": torch.ones(1)}, sharded / "model.safetensors")
    assert list(read_tensors(sharded)) == ["x"]


def test_pickles_are_never_opened_beside_safetensors(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    for name in ("pytorch_model.bin", "pytorch_model.bin.index.json"):
        (sharded / name).write_bytes(b"poison")

    real_open = os.open

    def watched_open(path: str, flags: int, mode: int = 0o777) -> int:
        opened.append(os.fspath(path))
        return real_open(path, flags, mode)

    monkeypatch.setattr(os, "open", watched_open)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    assert set(read_tensors(sharded)) == {"a", "b", "c"}
    assert any(name.endswith(TWO) for name in opened)
    assert not [name for name in opened if ".bin" in name]


def test_one_pickle_is_read_with_a_warning_that_says_how_to_convert_it(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "b": torch.tensor(3)}, tmp_path / "pytorch_model.bin")
    with pytest.warns(UserWarning, match="has its weights in a pickle.*to convert it, run") as caught:
        found = read_tensors(tmp_path)
    assert len(caught) == 1
    assert found["a"].tolist() == [1, 1]
    command = shlex.split(str(caught[0].message).splitlines()[1])  # the command the warning gives
    assert command[0] == "sparse-encoder" and main(command[1:]) == 0
    assert read_tensors(tmp_path)["b"].item() == 3
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors", "pytorch_model.bin"]


def test_pickles_in_shards_are_read_with_one_warning(tmp_path: Path) -> None:
    names = [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    torch.save({"a": torch.ones(2)}, tmp_path / names[0])
    torch.save({"b": torch.zeros(3)}, tmp_path / names[1])
    index = {"metadata": {}, "weight_map": {"a": names[0], "b": names[1]}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.warns(UserWarning, match="pickle") as caught:
        assert set(read_tensors(tmp_path)) == {"a", "b"}
    assert len(caught) == 1
    with pytest.raises(CheckpointError, match="has no weights; looked for .'model.safetensors'"):
        read_tensors(tmp_path, use_safetensors=True)


def test_false_reads_only_the_pickle(sharded: Path) -> None:
    with pytest.raises(CheckpointError, match="looked for .'pytorch_model.bin'.*which are not read"):
        read_tensors(sharded, use_safetensors=False)
    torch.save({"p": torch.ones(2)}, sharded / "pytorch_model.bin")
    with pytest.warns(UserWarning, match="pickle"):
        assert list(read_tensors(sharded, use_safetensors=False)) == ["p"]


def test_a_folder_without_weights_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "tf_model.h5").touch()
    with pytest.raises(CheckpointError, match=r"has no weights.*'tf_model.h5'"):
        read_tensors(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "none")
    with pytest.raises(NotADirectoryError):
        read_tensors(tmp_path / "tf_model.h5")


@pytest.mark.parametrize(
    "shard",
    [
        "../x.safetensors",
        "/etc/x.safetensors",
        "C:\\x.safetensors",
        "C:x.safetensors",
        "\\\\host\\share\\x.safetensors",
        "a\\..\\b.safetensors",
        "sub/x.safetensors",
        "",
        ".",
        "..safetensors",
        "x\0.safetensors",
        "x.safetensors\n",
        "config.json",
        "x.bin",
        "é.safetensors",
        7,
        None,
        ["x.safetensors"],
    ],
)
def test_shards_lie_beside_their_index(sharded: Path, monkeypatch: pytest.MonkeyPatch, shard: object) -> None:
    save_file({"a": torch.ones(2)}, sharded.parent / "x.safetensors")
    put_index(sharded, {"a": shard, "b": ONE, "c": TWO})
    opener = "sparse_encoder.checkpoint.safetensors_file.open_regular"
    monkeypatch.setattr(opener, lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(CheckpointError, match="a shard must be the name of a file beside its index") as caught:
        read_tensors(sharded)
    assert caught.value.field == "a"
    assert str(caught.value.path).endswith(INDEX)


def test_a_shard_that_is_a_link_must_not_leave_the_folder(sharded: Path) -> None:
    (sharded / TWO).rename(sharded / "elsewhere")
    (sharded / TWO).symlink_to("elsewhere")
    assert set(read_tensors(sharded)) == {"a", "b", "c"}
    outside = sharded.parent / "outside.safetensors"
    (sharded / "elsewhere").rename(outside)
    (sharded / TWO).unlink()
    (sharded / TWO).symlink_to(outside)
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        read_tensors(sharded)


def test_single_files_that_are_links_must_not_leave_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "outside.safetensors")
    (folder / "model.safetensors").symlink_to("../outside.safetensors")
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        read_tensors(folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("none.safetensors")
    with pytest.raises(CheckpointError, match="a link to nothing"):
        read_tensors(folder)


def test_a_shard_that_is_listed_and_missing(sharded: Path) -> None:
    (sharded / TWO).unlink()
    with pytest.raises(CheckpointError, match=f"1 are listed in the index and not there: '{TWO}'"):
        read_tensors(sharded)


def test_a_shard_that_is_there_and_not_listed(sharded: Path) -> None:
    save_file({"d": torch.ones(2)}, sharded / "model-00003-of-00003.safetensors")
    with pytest.raises(CheckpointError, match="1 are there and not listed in the index: 'model-00003-of-00003"):
        read_tensors(sharded)


def test_a_tensor_that_is_listed_twice(sharded: Path) -> None:
    (sharded / INDEX).write_text(f'{{"weight_map": {{"a": "{ONE}", "b": "{ONE}", "c": "{TWO}", "a": "{TWO}"}}}}')
    with pytest.raises(CheckpointError, match="the key 'a' is there twice"):
        read_tensors(sharded)


def test_a_tensor_the_shard_lacks(sharded: Path) -> None:
    put_index(sharded, {"a": ONE, "b": ONE, "c": TWO, "d": TWO})
    with pytest.raises(CheckpointError, match=f"1 are missing from {TWO}, where the index has them: 'd'"):
        read_tensors(sharded)


def test_a_tensor_the_index_lacks(sharded: Path) -> None:
    put_index(sharded, {"a": ONE, "c": TWO})
    with pytest.raises(CheckpointError, match=f"1 are in {ONE}, where the index does not have them: 'b'"):
        read_tensors(sharded)


def test_a_tensor_in_two_shards(sharded: Path) -> None:
    save_file({"c": torch.ones(4), "a": torch.zeros(2)}, sharded / TWO)
    with pytest.raises(CheckpointError, match=f"1 are in {TWO}, where the index does not have them: 'a'"):
        read_tensors(sharded)


@pytest.mark.parametrize("name", ["bert.embeddings.position_ids", "pooler.dense.weight", "bert.pooler.dense.bias"])
def test_leftovers_the_index_lacks_are_let_through(sharded: Path, name: str) -> None:
    save_file({"c": torch.ones(4), name: torch.zeros(2)}, sharded / TWO)
    assert set(read_tensors(sharded)) == {"a", "b", "c", name}


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": null}', '"x"', "{", '{"weight_map": NaN}'],
)
def test_an_index_that_is_none(sharded: Path, content: str) -> None:
    (sharded / INDEX).write_text(content)
    with pytest.raises(CheckpointError) as caught:
        read_tensors(sharded)
    assert str(caught.value.path).endswith(INDEX)


def test_many_offenders_are_counted_and_some_shown(sharded: Path) -> None:
    put_index(sharded, {"a": ONE, "b": ONE, "c": TWO, **{f"x{n}": TWO for n in range(25)}})
    with pytest.raises(CheckpointError, match="25 are missing .*'x0', .*, ..."):
        read_tensors(sharded)


def test_an_index_is_bounded(sharded: Path) -> None:
    put_index(sharded, {f"x{n}": ONE for n in range(10_001)})
    with pytest.raises(CheckpointError, match="1 to 10000 names"):
        read_tensors(sharded)
    (sharded / INDEX).write_bytes(b" " * 4_000_001)
    with pytest.raises(CheckpointError, match="must not be larger than 4000000 bytes"):
        read_tensors(sharded)


def test_wrapped_names_come_as_they_are_and_can_be_unwrapped(tmp_path: Path) -> None:
    save_file({"module.a": torch.ones(1), "module.b": torch.zeros(1)}, tmp_path / "model.safetensors")
    found = read_tensors(tmp_path)
    assert set(found) == {"module.a", "module.b"}
    assert set(canonical_names(found)) == {"a", "b"}
