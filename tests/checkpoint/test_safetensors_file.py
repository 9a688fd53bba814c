"""One file that lies about itself (rows 11 to 20 of bad_inputs.py)."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from checkpoint_helpers import BAD_SAFETENSORS, GOOD_SAFETENSORS, floats, safetensors_bytes
from safetensors import safe_open
from safetensors.torch import save_file

from sparse_encoder.checkpoint import CheckpointError, read_tensors
from sparse_encoder.checkpoint.safetensors_file import read_safetensors


def test_the_file_made_by_hand_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(GOOD_SAFETENSORS)
    assert {name: tensor.tolist() for name, tensor in read_tensors(tmp_path).items()} == {"a": [1, 2], "b": [[3]]}


@pytest.mark.parametrize(("content", "message"), BAD_SAFETENSORS.values(), ids=BAD_SAFETENSORS.keys())
def test_a_bad_file_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    start = time.process_time()
    with pytest.raises(CheckpointError, match=message) as caught:
        read_tensors(tmp_path)
    assert time.process_time() - start < 3.0
    assert caught.value.path == str(path)
    assert "\0" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_name_given_twice_passes_the_official_parser_and_not_ours(tmp_path: Path) -> None:
    one = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes("{" + one + "," + one + "}", floats(1)))
    with safe_open(path, framework="pt") as file:
        assert list(file.keys()) == ["a"]
    with pytest.raises(CheckpointError, match="the key 'a' is there twice"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_nan_is_seen_in_every_floating_type(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.ones(5, 3, dtype=dtype)
    tensor[4, 1] = float("nan")
    save_file({"fine": torch.ones(2, dtype=dtype), "broken": tensor}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="NaN") as caught:
        read_tensors(tmp_path)
    assert caught.value.field == "broken"


@pytest.mark.parametrize("kind", ["many tensors", "many small members", "ten thousand and one"])
def test_a_header_cannot_cost_much(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.safetensors"
    if kind == "many tensors":  # the 67 MB header that takes the official parser 24 s
        count, text = 1_000_000, '"t":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}       '
    elif kind == "many small members":
        count, text = 360_000, '"{:07}":0'
    else:
        count, text = 10_001, '"t{}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    path.write_bytes(safetensors_bytes("{" + ",".join(map(text.format, range(count))) + "}"))
    tracemalloc.start()  # which sees all there is of a header: texts and what they are parsed into
    try:
        with pytest.raises(CheckpointError):
            read_tensors(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    start = time.process_time()
    with pytest.raises(CheckpointError, match="says its header has|has more than 100000 members|has 10001 tensors"):
        read_tensors(tmp_path)
    assert time.process_time() - start < 3.0
    assert peak < 100_000_000


def test_a_pipe_or_folder_in_place_of_weights_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="regular file"):
        read_tensors(tmp_path)
    os.unlink(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="regular file|cannot be opened"):
        read_tensors(tmp_path)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(2), "b": torch.ones(100_000)}, path)
    monkeypatch.setattr(
        "sparse_encoder.checkpoint.safetensors_file._ask_official_parser", lambda _: os.truncate(path, 300_000)
    )
    with pytest.raises(CheckpointError, match="was cut off while it was read") as caught:
        read_safetensors(path)
    assert caught.value.field == "b"


def test_every_truncation_and_flipped_bits_of_a_header_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for length in range(len(GOOD_SAFETENSORS)):
        path.write_bytes(GOOD_SAFETENSORS[:length])
        with pytest.raises(CheckpointError):
            read_safetensors(path)
    refused = 0
    header_end = len(GOOD_SAFETENSORS) - 12
    for position in range(0, 8 * header_end, 5):
        damaged = bytearray(GOOD_SAFETENSORS)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            found = read_safetensors(path)
        except CheckpointError:
            refused += 1
        else:  # a flip that only makes another name, shape of the same size or type of the same width
            assert sum(tensor.nbytes for tensor in found.values()) == 12
    assert refused > 7 * header_end // 5
