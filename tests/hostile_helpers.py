"""Good folders, ways to spoil them, and a table of who meets what: rows 1 to 40 of bad_inputs.py.

A harm changes a copy of a good folder. ``hostile_process.py`` opens the copies and writes down what happened.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from model_helpers import write_masked_language_model, write_tokenizer
from safetensors.torch import load_file, save_file
from search_helpers import random_rows
from torch import Tensor

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import LoraConfig, MaskedLanguageModel
from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.search import SparseIndex
from sparse_encoder.token_classification import TokenClassificationModel

WEIGHTS, INDEX, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
SHARD = "model-00001-of-00001.safetensors"
DENSE = "bert.encoder.layer.0.output.dense.bias"
Harm = Callable[[Path], object]
MODELS = ("encoder", "masked", "sharded", "tagger")
"""Who opens weights."""


class Case(NamedTuple):
    """A hostile folder, and who opens it."""

    name: str
    rows: tuple[int, ...]
    """Numbers of ``BAD_INPUTS``."""
    entries: tuple[str, ...]
    """Names in ``hostile_process.ENTRIES``."""
    harm: Harm
    error: str | None
    """Class of the error; None for a folder that is opened with the numbers of the good one."""
    says: str = ""
    """A pattern of the error or warning."""
    closed: str | None = None
    """A file that is never opened."""


def make_good(root: Path) -> None:
    """Write a folder of each kind: a sparse encoder, a tagger, an index, embeddings."""
    plain = write_masked_language_model(root / "plain")
    SparseEncoder(str(plain), device="cpu").save_pretrained(str(root / "sparse"))
    shutil.copytree(root / "sparse", root / "shards")
    as_shard(root / "shards")
    labels = {"id2label": {"0": "O", "1": "B-PER", "2": "I-PER"}, "label2id": {"O": 0, "B-PER": 1, "I-PER": 2}}
    config = {**json.loads((plain / "config.json").read_text()), **labels}
    torch.manual_seed(6)
    TokenClassificationModel.from_config(config).save_pretrained(root / "tagger")
    write_tokenizer(root / "tagger")
    SparseIndex.build(random_rows(6, 9, seed=1)).save(root / "index")
    model = MaskedLanguageModel.from_pretrained(root / "sparse")
    model.add_adapter(LoraConfig(r=3, init_lora_weights=False))
    model.save_adapter(root / "adapter")
    (root / "embeddings").mkdir()
    SparseEmbeddings.from_scipy(random_rows(4, 9, seed=2)).save(root / "embeddings" / "rows.safetensors")


GOOD = {
    "encoder": "sparse",
    "masked": "sparse",
    "masked_safe": "sparse",
    "sharded": "shards",
    "tokenizer": "sparse",
    "tagger": "tagger",
    "index": "index",
    "embeddings": "embeddings",
    "checkpoint": "checkpoint",
    "adapter": "adapter",
    "llama": "llama",
    "gpt2": "gpt2",
    "t5": "t5",
    "bart": "bart",
    "served": "served",
}
"""Which good folder a harm is done to."""


def spoil(root: Path, case: Case, entry: str, number: int) -> Path:
    """Make the hostile folder of one case for one entry; returns it."""
    folder = root / f"bad{number:03}"
    shutil.copytree(root / GOOD[entry.replace("sharded", "masked")], folder, symlinks=True)
    case.harm(folder)
    if entry == "sharded" and not os.path.lexists(folder / INDEX):
        as_shard(folder)
    return folder


def as_shard(folder: Path) -> None:
    """Turn the weights into one shard with an index, whatever they are."""
    suffix = WEIGHTS if os.path.lexists(folder / WEIGHTS) else PICKLE
    shard, index = (SHARD, INDEX) if suffix == WEIGHTS else ("pytorch_model-00001-of-00001.bin", f"{PICKLE}.index.json")
    (folder / suffix).rename(folder / shard)
    good = load_file(folder.parent / "sparse" / WEIGHTS)
    (folder / index).write_text(json.dumps({"weight_map": dict.fromkeys(good, shard)}))


# Harms


def file(name: str, content: bytes | str) -> Harm:
    """Return a harm that writes a file."""
    data = content.encode() if isinstance(content, str) else content

    def harm(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(data)

    return harm


def values(name: str, **changes: Any) -> Harm:  # noqa: ANN401 - JSON
    """Return a harm that sets values of a JSON object."""

    def harm(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **changes}))

    return harm


config = partial(values, "config.json")
"""Returns a harm that sets values of config.json."""


def tensors(change: Callable[[dict[str, Tensor]], object]) -> Harm:
    """Return a harm that changes the tensors."""

    def harm(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS, {"format": "pt"})

    return harm


def renamed(prefix: str) -> Harm:
    """Return a harm that puts something before every name."""

    def change(found: dict[str, Tensor]) -> None:
        for name in list(found):
            found[prefix + name] = found.pop(name)

    return tensors(change)


def header(change: Callable[[dict[str, Any]], object]) -> Harm:
    """Return a harm that changes the header of the weights, and not the numbers."""

    def harm(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        content = json.loads(data[8 : 8 + length])
        change(content)
        text = json.dumps(content).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return harm


def index(shard: str, **more: str) -> Harm:
    """Return a harm that puts an index beside the weights, which are then called ``one.safetensors``."""

    def harm(folder: Path) -> None:
        names = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).rename(folder / "one.safetensors")
        weight_map = {**dict.fromkeys(names, "one.safetensors"), DENSE: shard, **more}
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))

    return harm


def two_shards(change: Callable[[dict[str, str], Path], object]) -> Harm:
    """Return a harm that splits the weights and changes the index."""

    def harm(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        half = len(found) // 2
        parts = {"one.safetensors": list(found)[:half], "two.safetensors": list(found)[half:]}
        for shard, names in parts.items():
            save_file({name: found[name] for name in names}, folder / shard)
        weight_map = {name: shard for shard, names in parts.items() for name in names}
        change(weight_map, folder)
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))

    return harm


def pipe(name: str) -> Harm:
    """Return a harm that puts a pipe in the place of a file."""

    def harm(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return harm


def door(name: str) -> Harm:
    """Return a harm that puts a socket in the place of a file."""

    def harm(folder: Path) -> None:
        (folder / name).unlink()
        before = Path.cwd()
        os.chdir(folder)  # the name of a socket must be short
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(name)
        finally:
            os.chdir(before)

    return harm


def room(name: str) -> Harm:
    """Return a harm that puts a folder in the place of a file."""

    def harm(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return harm


def link(name: str, target: str | None = None) -> Harm:
    """Return a harm that puts a link in the place of a file: to the same file outside, or to a target."""

    def harm(folder: Path) -> None:
        outside = folder.parent / "outside" / f"{folder.name}-{Path(name).name}"
        if target is None:
            outside.parent.mkdir(exist_ok=True)
            shutil.move(folder / name, outside)
        else:
            (folder / name).unlink()
        (folder / name).symlink_to(outside if target is None else target)

    return harm


def hole(name: str, size: int) -> Harm:
    """Return a harm that makes a file huge, without using the disk."""

    def harm(folder: Path) -> None:
        with (folder / name).open("ab") as made:
            made.truncate(size)

    return harm


def both(*harms: Harm) -> Harm:
    """Return a harm that does several."""

    def harm(folder: Path) -> None:
        for each in harms:
            each(folder)

    return harm


class Run:
    """Unpickled carelessly, it runs a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


def saved(value: object) -> bytes:
    """Return what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def packed(data: bytes) -> bytes:
    """Return a zip archive of much in little."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", b"\0" * 200_000_000)
    return buffer.getvalue()


def as_pickle(folder: Path) -> None:
    """Keep the weights as torch.save writes them, and nothing else."""
    torch.save(load_file(folder / WEIGHTS), folder / PICKLE)
    (folder / WEIGHTS).unlink()


def only_pickle(content: bytes) -> Harm:
    """Return a harm that leaves a pickle as the only weights."""

    def harm(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / PICKLE).write_bytes(content)

    return harm


def vocabulary(change: Callable[[dict[str, Any]], object]) -> Harm:
    """Return a harm that changes tokenizer.json."""

    def harm(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        change(content)
        (folder / "tokenizer.json").write_text(json.dumps(content))

    return harm


def modules(change: Callable[[list[dict[str, Any]]], object]) -> Harm:
    """Return a harm that changes modules.json."""

    def harm(folder: Path) -> None:
        content = json.loads((folder / "modules.json").read_text())
        change(content)
        (folder / "modules.json").write_text(json.dumps(content))

    return harm


def cut_tensor(name: str) -> Harm:
    """Return a harm that takes a row of a tensor."""
    return tensors(lambda found: found.update({name: found[name][:-1].clone()}))


def with_value(value: float) -> Harm:
    """Return a harm that puts a number into a bias."""

    def change(found: Mapping[str, Tensor]) -> None:
        name = next(each for each in found if each.endswith("layer.0.output.dense.bias"))
        found[name][1] = value

    return tensors(change)


def table_of(rows: Sequence[int], cases: Sequence[tuple[str, Sequence[str], Harm, str | None, str]]) -> list[Case]:
    """Make the cases of some rows."""
    return [Case(name, tuple(rows), tuple(entries), harm, error, says) for name, entries, harm, error, says in cases]
