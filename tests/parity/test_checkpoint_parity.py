"""Weight files that transformers and safetensors write, read here, and the reverse."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sparse_encoder.checkpoint import read_tensors, write_tensors
from sparse_encoder.checkpoint.hub_names import ORIGINAL_NAMES

transformers = pytest.importorskip("transformers")


@pytest.fixture
def model() -> Any:  # noqa: ANN401 - a class of the peer
    """Return a small model with random weights and a tied head."""
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=17,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=9,
    )
    return transformers.BertForMaskedLM(config).eval()


def stored(model: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """Return the weights as the hub has them: tied ones once."""
    tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(found) == set(wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("size", ["5GB", "5KB"])
def test_what_transformers_writes_is_read(tmp_path: Path, model: Any, size: str) -> None:  # noqa: ANN401
    model.save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (size == "5KB")
    assert_same(read_tensors(tmp_path), stored(model))


@pytest.mark.parametrize("max_shard_size", [10**9, 5000])
def test_what_is_written_transformers_reads(tmp_path: Path, model: Any, max_shard_size: int) -> None:  # noqa: ANN401
    model.config.save_pretrained(tmp_path)
    write_tensors(tmp_path, stored(model), max_shard_size=max_shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (max_shard_size == 5000)
    loaded, report = transformers.BertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert_same(loaded.state_dict(), model.state_dict())


def test_saving_over_a_save_of_transformers_replaces_it(tmp_path: Path, model: Any) -> None:  # noqa: ANN401
    model.save_pretrained(tmp_path, max_shard_size="5KB")
    changed = {name: tensor + 1 for name, tensor in stored(model).items()}
    for max_shard_size in (10**9, 5000):
        write_tensors(tmp_path, changed, max_shard_size=max_shard_size)
        assert_same(stored(transformers.BertForMaskedLM.from_pretrained(tmp_path)), changed)
    shards = [name for name in os.listdir(tmp_path) if name.endswith(".safetensors")]
    assert set().union(*(load_file(tmp_path / name) for name in shards)) == set(changed)


def test_a_pickle_of_a_state_dict_is_read(tmp_path: Path, model: Any) -> None:  # noqa: ANN401
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.warns(UserWarning, match="pickle"):
        found = read_tensors(tmp_path)
    assert_same(found, model.state_dict())
    word, decoder = found["bert.embeddings.word_embeddings.weight"], found["cls.predictions.decoder.weight"]
    assert word.data_ptr() == decoder.data_ptr()  # tied in the file, tied in memory


def test_shards_are_split_as_the_hub_splits_them(tmp_path: Path, model: Any) -> None:  # noqa: ANN401
    hub = pytest.importorskip("huggingface_hub")
    for size in (700, 5000, 20_000):
        split = hub.split_torch_state_dict_into_shards(stored(model), max_shard_size=size)
        write_tensors(tmp_path, stored(model), max_shard_size=size)
        shards = sorted(name for name in os.listdir(tmp_path) if name.endswith(".safetensors"))
        found = [sorted(load_file(tmp_path / name)) for name in shards]
        wanted = [sorted(names) for _, names in sorted(split.filename_to_tensors.items())]
        largest = max(tensor.nbytes for tensor in stored(model).values())
        if largest <= size:  # one that fits in no shard stands alone there and ends the shard before it here
            assert found == wanted
        assert sorted(sum(found, [])) == sorted(sum(wanted, []))


def test_the_original_names_are_those_of_the_peer() -> None:
    peer = pytest.importorskip("sentence_transformers.util.misc")
    assert frozenset(peer.ORIGINAL_TRANSFORMER_MODELS) == ORIGINAL_NAMES
