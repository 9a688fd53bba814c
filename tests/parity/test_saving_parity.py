"""Shards, pickles and variants: written here and read by transformers, and the reverse; every family, head or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS, randomise
from loading_helpers import assert_same

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel
from sparse_encoder.checkpoint import read_tensors
from sparse_encoder.checkpoint.writing import split, write_tensors

transformers = pytest.importorskip("transformers")

CONFIGS = {
    **TINY_CONFIGS,
    **VARIANTS,
    **{f"{name}, its tie undone": {**TINY_CONFIGS[name], "tie_word_embeddings": False} for name in TINY_CONFIGS},
}
KINDS = {"head": (MaskedLanguageModel, "AutoModelForMaskedLM"), "base": (EncoderModel, "AutoModel")}
SIZES = [1500, "2KiB", 0]


def without_pooler(names: set[str]) -> set[str]:
    return {name for name in names if "pooler" not in name}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONFIGS)
def test_shards_written_here_load_there_and_the_reverse(name: str, kind: str, tmp_path: Path) -> None:
    our_kind, their_kind = KINDS[kind]
    ours = our_kind.from_config(CONFIGS[name]).eval()
    randomise(ours)
    ours.save_pretrained(tmp_path / "ours", max_shard_size=2000)
    assert len(list((tmp_path / "ours").glob("model-*-of-*.safetensors"))) > 2
    peer, info = getattr(transformers, their_kind).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not without_pooler(info.pop("missing_keys")), "a base model of theirs has a pooler, ours has none"
    assert not any(info.values()), info
    peer.save_pretrained(tmp_path / "echo")
    stored, echo = read_tensors(tmp_path / "ours"), read_tensors(tmp_path / "echo")
    assert set(stored) == without_pooler(set(echo))
    assert all(torch.equal(tensor, echo[key]) for key, tensor in stored.items())

    randomise(peer, seed=1)
    peer.save_pretrained(tmp_path / "theirs", max_shard_size=2000)
    back, report = our_kind.from_pretrained(tmp_path / "theirs", output_loading_info=True, strict=True)
    assert not report["missing_keys"] and not report["mismatched_keys"] and not report["error_msgs"]
    assert not without_pooler(set(report["unexpected_keys"]))
    back.save_pretrained(tmp_path / "back", max_shard_size=2000)
    again, expected = read_tensors(tmp_path / "back"), read_tensors(tmp_path / "theirs")
    assert without_pooler(set(expected)) == set(again)
    copy = back.family.decoder_bias_copy if kind == "head" else None
    for key, tensor in again.items():
        if copy is None or key != copy.replace("decoder.", ""):  # of an untied decoder's two the one that is used
            assert torch.equal(tensor, expected[key]), key


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_variants_and_sizes_load_there(tmp_path: Path, size: int | str, variant: str | None) -> None:
    ours = MaskedLanguageModel.from_config(TINY_CONFIGS["bert"]).eval()
    randomise(ours)
    ours.save_pretrained(tmp_path, max_shard_size=size, variant=variant)
    kind = transformers.AutoModelForMaskedLM
    peer, info = kind.from_pretrained(tmp_path, variant=variant, output_loading_info=True)
    assert not any(info.values()), info
    peer.save_pretrained(tmp_path / "theirs", max_shard_size=1500, variant=variant)
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path / "theirs", variant=variant), ours)


@pytest.mark.filterwarnings("ignore:.*pickle.*:UserWarning")
@pytest.mark.parametrize("size", ["5GB", 1500])
def test_a_pickle_loads_there(tmp_path: Path, size: int | str) -> None:
    ours = MaskedLanguageModel.from_config(TINY_CONFIGS["bert"]).eval()
    randomise(ours)
    ours.save_pretrained(tmp_path)
    ours.save_pretrained(tmp_path, max_shard_size=size, safe_serialization=False)
    _, info = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path), ours)


def tiny_gpt2() -> Any:  # noqa: ANN401 - a peer's class
    sizes = {"vocab_size": 61, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


@pytest.mark.parametrize(("size", "limit", "shards"), [("5KB", 5000, 8), ("1.5kb", 1500, 12), (0, 0, 28)])
def test_a_tiny_gpt2_is_cut_as_there(tmp_path: Path, size: int | str, limit: int, shards: int) -> None:
    model = tiny_gpt2()
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    assert len(split(tensors, "model{suffix}.safetensors", limit)) == shards
    write_tensors(tmp_path, tensors, max_shard_size=size)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_parameters": 8080, "total_size": 32320}
    assert len(set(index["weight_map"].values())) == shards and "lm_head.weight" not in index["weight_map"]
    model.config.save_pretrained(tmp_path)
    peer, info = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert all(torch.equal(tensor, peer.state_dict()[name]) for name, tensor in tensors.items())
    peer.save_pretrained(tmp_path / "theirs", max_shard_size=size)
    theirs = json.loads((tmp_path / "theirs" / "model.safetensors.index.json").read_text())
    assert set(theirs["weight_map"]) == set(index["weight_map"])
    assert set(theirs["weight_map"].values()) == set(index["weight_map"].values())  # filled in another order
