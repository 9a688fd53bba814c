"""One file that lies about itself (rows 11-20 of the bad inputs)."""

from __future__ import annotations

import os
import resource
import struct
import time
from pathlib import Path

import pytest
import torch
from checkpoint_helpers import entry, floats, safetensors_bytes
from safetensors import safe_open
from safetensors.torch import save_file

from sparse_encoder.checkpoint import CheckpointError, read_tensors
from sparse_encoder.checkpoint.safetensors_file import read_safetensors

GOOD = safetensors_bytes({"a": entry([2], 0, 8), "b": entry([1, 1], 8, 12)}, floats(1, 2, 3))


def test_the_file_made_by_hand_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(GOOD)
    assert {name: tensor.tolist() for name, tensor in read_tensors(tmp_path).items()} == {"a": [1, 2], "b": [[3]]}


BAD = {
    "header length of all ones": (b"\xff" * 8 + b"{}", "says its header has 18446744073709551615 bytes"),
    "header length over a hundred megabytes": (safetensors_bytes("{}", length=100_000_001), "says its header has"),
    "header longer than the file": (safetensors_bytes("{}", length=100), "fit the file of 10 bytes"),
    "header length 0": (safetensors_bytes("{}", length=0), "says its header has 0 bytes"),
    "header over four megabytes": (safetensors_bytes("{" + " " * 4_000_000 + "}"), "2 to 4000000"),
    "empty": (b"", "has only 0 bytes"),
    "seven bytes": (b"\x02\0\0\0\0\0\0", "has only 7 bytes"),
    "a pointer of git lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
        "is a Git LFS pointer.*git lfs pull",
    ),
    "a web page": (b"\n<!DOCTYPE html><html><title>404</title></html>", "is a web page"),
    "a web page in capitals": (b"<HTML>Sign in</HTML>", "is a web page"),
    "a pytorch archive": (b"PK\x03\x04" + b"\0" * 60, "is a PyTorch file"),
    "an old pytorch file": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\0" * 60, "is a PyTorch file"),
    "header no JSON": (safetensors_bytes("{a}"), "is not valid JSON"),
    "header a list": (safetensors_bytes([1, 2]), "no JSON object"),
    "header after blanks": (safetensors_bytes(' {"a": 1}'), "no JSON object"),
    "header not UTF-8": (struct.pack("<Q", 9) + b'{"\xff": 1}' + b" ", "must be UTF-8"),
    "a name twice": (
        safetensors_bytes('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},' * 2 + '"b":1}', floats(1)),
        "is not valid JSON|the key 'a' is there twice",
    ),
    "trailing bytes": (GOOD + b"\0", "no valid safetensors"),
    "cut off": (GOOD[:-1], "no valid safetensors"),
    "overlap": (
        safetensors_bytes({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, floats(1, 2, 3)),
        "no valid safetensors",
    ),
    "a hole": (
        safetensors_bytes({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, floats(1, 2, 3)),
        "no valid safetensors",
    ),
    "a size that is not the shape's": (
        safetensors_bytes({"a": entry([3], 0, 8)}, floats(1, 2)),
        "no valid safetensors",
    ),
    "offsets below zero": (safetensors_bytes({"a": entry([1], -4, 0)}), "data_offsets"),
    "offsets the wrong way round": (safetensors_bytes({"a": entry([1], 4, 0)}, floats(1)), "data_offsets"),
    "offsets beyond 64 bits": (safetensors_bytes({"a": entry([1], 0, 2**64)}), "data_offsets"),
    "an overflowing shape": (safetensors_bytes({"a": entry([2**40, 2**40], 0, 4)}, floats(1)), "no valid safetensors"),
    "a huge axis beside an empty one": (safetensors_bytes({"a": entry([0, 2**62], 0, 0)}), "has the shape"),
    "an axis below zero": (safetensors_bytes({"a": entry([-1], 0, 4)}, floats(1)), "has the shape"),
    "an axis that is true": (
        safetensors_bytes('{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}', floats(1)),
        "shape",
    ),
    "nine axes": (safetensors_bytes({"a": entry([1] * 9, 0, 4)}, floats(1)), "has the shape"),
    "a shape that is a text": (
        safetensors_bytes({"a": {**entry([1], 0, 4), "shape": "1"}}, floats(1)),
        "has the shape",
    ),
    "an entry that is a number": (safetensors_bytes({"a": 1}), "must have dtype, shape and data_offsets"),
    "an entry with more": (safetensors_bytes({"a": {**entry([1], 0, 4), "x": 1}}, floats(1)), "must have dtype"),
    "metadata of numbers": (
        safetensors_bytes({"__metadata__": {"a": 1}, "b": entry([1], 0, 4)}, floats(1)),
        "no valid",
    ),
    **{
        f"type {dtype}": (
            safetensors_bytes({"a": entry([4], 0, 4, dtype)}, b"\0" * 4),
            rf"has the type '{dtype}'; supported are \['BF16', 'BOOL', 'F16', 'F32', 'F64', 'I32', 'I64', 'U8'\]",
        )
        for dtype in ("F8_E4M3", "F8_E5M2", "F4", "I8", "U16", "C64", "", "f32")
    },
    **{
        f"value {value}": (safetensors_bytes({"a": entry([2], 0, 8)}, floats(1, value)), "has NaN or infinite values")
        for value in (float("nan"), float("inf"), float("-inf"))
    },
    **{
        f"name {name[:20]!r}": (safetensors_bytes({name: entry([1], 0, 4)}, floats(1)), "a tensor cannot be called")
        for name in ("../a", "a..b", "a/b", "a\\b", "a\0b", "a\nb", "", " ", "a\u202eb", "x" * 10_000)
    },
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match=message) as caught:
        read_tensors(tmp_path)
    assert time.perf_counter() - start < 1.0
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
        count, text = 1_000_000, '"t{:07}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    elif kind == "many small members":
        count, text = 360_000, '"{:07}":0'
    else:
        count, text = 10_001, '"t{}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    path.write_bytes(safetensors_bytes("{" + ",".join(map(text.format, range(count))) + "}"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match="says its header has|has more than 100000 members|has 10001 tensors"):
        read_tensors(tmp_path)
    assert time.perf_counter() - start < 1.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


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


def test_every_truncation_and_every_flipped_bit_of_a_header_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for length in range(len(GOOD)):
        path.write_bytes(GOOD[:length])
        with pytest.raises(CheckpointError):
            read_safetensors(path)
    refused = 0
    header_end = len(GOOD) - 12
    for position in range(8 * header_end):
        damaged = bytearray(GOOD)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            found = read_safetensors(path)
        except CheckpointError:
            refused += 1
        else:  # a flip that only makes another name, shape of the same size or type of the same width
            assert sum(tensor.nbytes for tensor in found.values()) == 12
    assert refused > 7 * header_end
