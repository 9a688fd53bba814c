from __future__ import annotations

import errno
import json
import os
import resource
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from checkpoint_helpers import tree_of
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparse_encoder.checkpoint import read_tensors, write_safetensors, write_tensors
from sparse_encoder.checkpoint.writing import system_errors


def some_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        "word.weight": torch.randn(17, 12, generator=generator),
        "half.weight": torch.randn(5, 3, generator=generator).half(),
        "brain.weight": torch.randn(2, 7, generator=generator).bfloat16(),
        "double.bias": torch.randn(12, generator=generator).double(),
        "count": torch.tensor(2**40),
        "ids": torch.arange(6, dtype=torch.int32).reshape(2, 3),
        "flags": torch.tensor([True, False, True]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "scale": torch.tensor(1.5),
        "nothing": torch.empty(0, 3),
    }


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor), name


def test_one_file_round_trip(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a" / "model", some_tensors())
    assert os.listdir(tmp_path / "a" / "model") == ["model.safetensors"]
    assert_same(read_tensors(tmp_path / "a" / "model"), some_tensors())


@pytest.mark.parametrize(("max_shard_size", "shards"), [(1, 10), (100, 4), (816, 2), (1000, 2), (1100, 1)])
def test_shards_round_trip(tmp_path: Path, max_shard_size: int, shards: int) -> None:
    write_tensors(tmp_path, some_tensors(), max_shard_size=max_shard_size)
    names = sorted(name for name in os.listdir(tmp_path) if name.endswith(".safetensors"))
    expected = [f"model-{n:05d}-of-{shards:05d}.safetensors" for n in range(1, shards + 1)]
    assert names == (expected if shards > 1 else ["model.safetensors"])
    assert_same(read_tensors(tmp_path), some_tensors())
    for name in names:
        total = sum(tensor.nbytes for tensor in load_file(tmp_path / name).values())
        assert total <= max_shard_size or len(load_file(tmp_path / name)) <= 2  # one large, and an empty one


def test_the_index_is_the_hub_s(tmp_path: Path) -> None:
    tensors = {"b": torch.zeros(3, 4), "a": torch.ones(5), "c": torch.ones(2, dtype=torch.bfloat16)}
    write_tensors(tmp_path, tensors, max_shard_size=50)
    assert json.loads((tmp_path / "model.safetensors.index.json").read_text()) == {
        "metadata": {"total_parameters": 19, "total_size": 72},
        "weight_map": {
            "a": "model-00002-of-00002.safetensors",
            "b": "model-00001-of-00002.safetensors",
            "c": "model-00002-of-00002.safetensors",
        },
    }


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_tensors(tmp_path / name, some_tensors(), max_shard_size=500)
    assert tree_of(tmp_path / "one") == tree_of(tmp_path / "two")


def test_metadata_has_the_format_and_the_caller_s(tmp_path: Path) -> None:
    write_tensors(tmp_path, {"a": torch.ones(2)}, metadata={"encoder.weight": "decoder.weight"})
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "encoder.weight": "decoder.weight"}


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_tensors(tmp_path, {"a": torch.ones(2)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o644


def test_views_and_gradients_are_written_as_their_values(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "rows": base[1:3],
        "rest": base[3:],
        "turned": base.T,
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "repeated": torch.ones(1).expand(5),
    }
    write_tensors(tmp_path, tensors)
    assert (tmp_path / "model.safetensors").stat().st_size < 1000  # not the memory the views look into
    assert_same(read_tensors(tmp_path), {name: tensor.detach() for name, tensor in tensors.items()})


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "1 to 10000 tensors, got 0"),
        ({"a b": torch.ones(1)}, "cannot be called 'a b'"),
        ({"../a": torch.ones(1)}, "cannot be called '../a'"),
        ({"": torch.ones(1)}, "cannot be called ''"),
        ({"__metadata__": torch.ones(1)}, "cannot be called '__metadata__'"),
        ({"x" * 501: torch.ones(1)}, "501 characters"),
        ({"a": torch.ones(2, dtype=torch.int8)}, "torch.int8"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "torch.complex64"),
        ({"a": torch.ones(2, 3).to_sparse()}, "torch.sparse_coo"),
        ({"a": torch.ones(2, device="meta")}, "meta device"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, tensors: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_tensors(tmp_path / "model", tensors)
    assert os.listdir(tmp_path) == []


def test_one_tensor_under_two_names_is_an_error_that_names_both(tmp_path: Path) -> None:
    tied = torch.ones(3, 2)
    with pytest.raises(ValueError, match="'decoder.weight' and 'word.weight' are one tensor"):
        write_tensors(tmp_path, {"decoder.weight": tied, "x": torch.ones(1), "word.weight": tied.detach()})
    with pytest.raises(ValueError, match="a size must be 0 or more bytes, got -1"):
        write_tensors(tmp_path, {"a": tied}, max_shard_size=-1)


def test_saving_again_leaves_nothing_of_the_earlier_save(tmp_path: Path) -> None:
    old, new = {"a": torch.zeros(40)}, {"a": torch.ones(40), "b": torch.ones(40)}
    for first, second in ((10**6, 200), (200, 10**6), (200, 100)):
        write_tensors(tmp_path, {**old, "c": torch.zeros(99)}, max_shard_size=first)
        write_tensors(tmp_path, new, max_shard_size=second)
        assert_same(read_tensors(tmp_path), new)
        listed = set(os.listdir(tmp_path))
        assert listed in ({"model.safetensors"}, set(SHARDS)), listed


SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]


def test_a_failed_save_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tensors(tmp_path / "model", {"a": torch.zeros(4)})
    before = tree_of(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sparse_encoder.checkpoint.writing.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        write_tensors(tmp_path / "model", {"a": torch.ones(4)})
    assert tree_of(tmp_path) == before


def test_tensors_of_the_files_are_not_those_in_memory(tmp_path: Path) -> None:
    """What was read stays as it is when the file changes: nothing is mapped."""
    write_tensors(tmp_path, {"a": torch.ones(5000)})
    found = read_tensors(tmp_path)
    save_file({"a": torch.zeros(5000)}, tmp_path / "model.safetensors")
    with open(tmp_path / "model.safetensors", "r+b") as file:
        file.truncate(10)
    assert torch.equal(found["a"], torch.ones(5000))


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="/\\."), min_size=1, max_size=30
)
NAMES = NAMES.filter(lambda name: name != "__metadata__")
SHAPES = st.lists(st.integers(0, 4), max_size=4)
KINDS = st.sampled_from(
    [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool]
)


@settings(max_examples=25, deadline=None)
@given(kinds=st.dictionaries(NAMES, st.tuples(SHAPES, KINDS), min_size=1, max_size=6), limit=st.integers(1, 2000))
def test_whatever_is_written_is_read(kinds: dict[str, tuple[list[int], torch.dtype]], limit: int) -> None:
    tensors = {name: torch.rand(shape).mul(9).to(dtype) for name, (shape, dtype) in kinds.items()}
    with TemporaryDirectory() as folder:
        write_tensors(Path(folder), tensors, max_shard_size=limit)
        assert_same(read_tensors(Path(folder)), tensors)
        sizes = [sum(t.nbytes for t in load_file(path).values()) for path in Path(folder).glob("*.safetensors")]
    assert sum(sizes) == sum(tensor.nbytes for tensor in tensors.values())
    assert max(sizes) <= max(limit, *(tensor.nbytes for tensor in tensors.values()), 0)


def test_what_a_disk_refuses_is_told_as_what_it_is(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as refused:
            write_safetensors(tmp_path / "a.safetensors", {"a": torch.zeros(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused.value.errno == errno.EFBIG
    assert refused.value.filename == str(tmp_path / "a.safetensors")
    with pytest.raises(SafetensorError, match="other"), system_errors(tmp_path):
        raise SafetensorError("something other")
