"""Pickles: read without running them, refused when they need more (row 1 of bad_inputs.py)."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparse_encoder.checkpoint import CheckpointError, read_tensors
from sparse_encoder.checkpoint.torch_file import read_torch_file


class Run:
    """Unpickled carelessly, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def saved(value: object, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@pytest.mark.parametrize("legacy", [False, True])
def test_state_dicts_of_every_age_are_read(tmp_path: Path, legacy: bool) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tied = torch.nn.Parameter(torch.ones(2, 2))
    state = OrderedDict(
        a=base,
        row=base[1],
        turned=base.T,
        b=tied,
        c=tied,
        half=torch.ones(2).half(),
        ids=torch.arange(3),
        s=torch.tensor(2.0),
    )
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(saved(state, legacy=legacy))
    found = read_torch_file(path)
    assert list(found) == list(state)
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor.detach())
        assert found[name].dtype == tensor.dtype
        assert not found[name].requires_grad
        assert type(found[name]) is Tensor


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_not_run(tmp_path: Path, legacy: bool) -> None:
    path, made = tmp_path / "pytorch_model.bin", tmp_path / "made"
    path.write_bytes(saved({"a": torch.ones(1), "b": Run(made)}, legacy=legacy))
    with pytest.warns(UserWarning, match="pickle"), pytest.raises(CheckpointError, match="weights_only=True") as caught:
        read_tensors(tmp_path)
    assert caught.value.path == str(path)
    assert caught.value.hint is not None
    assert not made.exists()


def test_a_plain_pickle_is_not_run(tmp_path: Path) -> None:
    path, made = tmp_path / "pytorch_model.bin", tmp_path / "made"
    path.write_bytes(pickle.dumps(Run(made)))
    with pytest.raises(CheckpointError):
        read_torch_file(path)
    assert not made.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(2), "must hold named tensors, got Tensor"),
        ([torch.ones(2)], "must hold named tensors, got list"),
        ({"state_dict": {"a": torch.ones(1)}}, "must be a tensor, got dict"),
        ({"a": torch.ones(1), "epoch": 3}, "must be a tensor, got int"),
        ({1: torch.ones(1)}, "has an entry called 1"),
        ({"../a": torch.ones(1)}, "cannot be called"),
        ({"a": torch.tensor([1.0, float("nan")])}, "NaN or infinite"),
        ({"a": torch.ones(2, dtype=torch.int8)}, "torch.int8"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "torch.complex64"),
        ({"a": torch.ones(2, 2).to_sparse()}, "torch.sparse_coo"),
        ({"a": torch.ones(2, device="meta")}, "meta"),
        ({"a": torch.ones(1).expand(10**9)}, "claims 4000000000 bytes of values"),
        (dict.fromkeys([f"a{n}" for n in range(10_001)], torch.ones(1)), "has 10001 tensors"),
    ],
)
def test_anything_but_named_plain_finite_tensors_is_refused(tmp_path: Path, value: object, message: str) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(saved(value))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_torch_file(path)
    assert caught.value.path == str(path)


def test_many_names_for_one_large_tensor_are_refused_at_once(tmp_path: Path) -> None:
    base = torch.zeros(1_000_000)
    (tmp_path / "x.bin").write_bytes(saved({f"a{n}": base.view(1_000_000) for n in range(5000)}))
    start = time.process_time()
    with pytest.raises(CheckpointError, match="claims 20000000000 bytes"):
        read_torch_file(tmp_path / "x.bin")
    assert time.process_time() - start < 6.0


def test_an_archive_that_unpacks_to_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    with (
        zipfile.ZipFile(io.BytesIO(saved({"a": torch.zeros(1_000_000)}))) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert path.stat().st_size < 50_000
    with pytest.raises(CheckpointError, match="has compressed records"):
        read_torch_file(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"PK\x03\x04", b"PK\x03\x04" + b"\0" * 100, b"<html></html>", b"\0" * 99]
)
def test_what_is_no_pytorch_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.warns(UserWarning, match="pickle"), pytest.raises(CheckpointError):
        read_tensors(tmp_path)


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pytorch_model.bin")
    with pytest.warns(UserWarning, match="pickle"), pytest.raises(CheckpointError, match="regular file"):
        read_tensors(tmp_path)


def test_shards_are_read_by_their_own_pattern(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "../pytorch_model.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.warns(UserWarning, match="pickle"), pytest.raises(CheckpointError, match="beside its index"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_bytes_raise_nothing_but_our_error(tmp_path: Path, legacy: bool) -> None:
    good = saved({"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}, legacy=legacy)
    path = tmp_path / "pytorch_model.bin"
    draw = random.Random(7)
    refused = 0
    for _ in range(300):
        damaged = bytearray(good)
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged[: draw.randrange(len(good))] if draw.random() < 0.2 else damaged)
        try:
            found = read_torch_file(path)
        except CheckpointError:
            refused += 1
        else:
            assert all(type(tensor) is Tensor for tensor in found.values())
    assert refused > 50
