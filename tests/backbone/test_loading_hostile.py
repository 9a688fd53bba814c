"""Hostile folders through a lenient from_pretrained: a typed error at once, and nothing outside is opened.

The memory that they take is measured in tests/test_hostile_folders.py, in processes of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoint_helpers import entry, safetensors_bytes
from loading_helpers import BIAS, WEIGHTS, WORDS, change, saved

from sparse_encoder.backbone import MaskedLanguageModel, load_sharded_checkpoint
from sparse_encoder.checkpoint import LoadError

INDEX = "model.safetensors.index.json"
Harm = Callable[[Path], object]


def with_config(**values: object) -> Harm:
    def harm(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **values}))

    return harm


def with_file(name: str, content: bytes) -> Harm:
    return lambda folder: (folder / name).write_bytes(content)


def with_index(shard: str) -> Harm:
    def harm(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "one.safetensors")
        (folder / INDEX).write_text(json.dumps({"weight_map": {WORDS: shard, BIAS: "one.safetensors"}}))

    return harm


def with_pipe(name: str) -> Harm:
    def harm(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return harm


def with_link(name: str) -> Harm:
    def harm(folder: Path) -> None:
        shutil.move(folder / name, folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)

    return harm


def with_huge_tensor(folder: Path) -> None:
    """Claim a quarter of a terabyte, and have it: as a hole in the file."""
    header = safetensors_bytes({WORDS: entry([1 << 36], 0, 1 << 38)})
    with (folder / WEIGHTS).open("wb") as file:
        file.write(header)
        file.truncate(len(header) + (1 << 38))


def with_many_tensors(folder: Path) -> None:
    header = {f"t{number}": entry([0], 0, 0) for number in range(20_000)}
    (folder / WEIGHTS).write_bytes(safetensors_bytes(header))


def with_name_twice(folder: Path) -> None:
    text = f'{{"{BIAS}":{json.dumps(entry([1], 0, 4))},"{BIAS}":{json.dumps(entry([1], 0, 4))}}}'
    (folder / WEIGHTS).write_bytes(safetensors_bytes(text, b"\0" * 4))


HARMS: dict[str, Harm] = {
    "shard above": with_index("../model.safetensors"),
    "absolute shard": with_index("/etc/passwd"),
    "shard of Windows": with_index("C:\\model.safetensors"),
    "missing shard": with_index("none.safetensors"),
    "weights lead out": with_link(WEIGHTS),
    "config leads out": with_link("config.json"),
    "weights are a pipe": with_pipe(WEIGHTS),
    "config is a pipe": with_pipe("config.json"),
    "pointer": with_file(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"),
    "web page": with_file(WEIGHTS, b"<!DOCTYPE html><html></html>"),
    "empty": with_file(WEIGHTS, b""),
    "long header": with_file(WEIGHTS, struct.pack("<Q", 2**63) + b"{}"),
    "huge tensor": with_huge_tensor,
    "many tensors": with_many_tensors,
    "a name twice": with_name_twice,
    "NaN": lambda folder: change(folder, lambda each: each.update({BIAS: torch.full((17,), float("nan"))})),
    "huge dimension": with_config(hidden_size=2**40),
    "negative layers": with_config(num_hidden_layers=-1),
    "a million layers": with_config(num_hidden_layers=1_000_000),
    "text for a number": with_config(hidden_size="12"),
    "another family": with_config(model_type="os.system"),
    "foreign architecture": with_config(architectures=["EvilModel"]),
    "config of no object": with_file("config.json", b"[]"),
    "config with a name twice": with_file("config.json", b'{"model_type": "bert", "model_type": "bert"}'),
    "config with NaN": with_file("config.json", b'{"model_type": "bert", "layer_norm_eps": NaN}'),
    "deep config": with_file("config.json", b"[" * 200_000),
}


@pytest.mark.parametrize("name", HARMS)
def test_a_typed_error_at_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    saved(folder)
    HARMS[name](folder)
    opened: list[str] = []
    real = os.open

    def watched(path: str, flags: int, mode: int = 0o777) -> int:
        opened.append(os.path.abspath(os.fspath(path)))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", watched)
    mismatched = name != "huge tensor"  # else it would be left aside, as the last test shows
    with pytest.raises(LoadError) as caught:
        MaskedLanguageModel.from_pretrained(folder, strict=False, ignore_mismatched_sizes=mismatched)
    started = time.process_time()
    with pytest.raises(LoadError):
        MaskedLanguageModel.from_pretrained(folder, strict=False, ignore_mismatched_sizes=mismatched)
    seconds = time.process_time() - started
    assert caught.value.path is not None and caught.value.path.startswith(str(folder))
    assert seconds < 1
    assert opened and not [path for path in opened if not path.startswith(str(folder))]


def test_a_tensor_that_does_not_fit_is_never_read(tmp_path: Path) -> None:
    saved(tmp_path / "model").save_pretrained(tmp_path / "model")
    with_huge_tensor(tmp_path / "model")
    with pytest.warns(UserWarning, match=r"\(68719476736,\) for \(17, 12\)"):
        MaskedLanguageModel.from_pretrained(tmp_path / "model", strict=False, ignore_mismatched_sizes=True)
    (tmp_path / "model" / WEIGHTS).rename(tmp_path / "model/one.safetensors")
    (tmp_path / "model" / INDEX).write_text(json.dumps({"weight_map": {WORDS: "one.safetensors"}}))
    model = torch.nn.Linear(2, 3)
    assert load_sharded_checkpoint(model, tmp_path / "model", strict=False) == (["bias", "weight"], [WORDS])
