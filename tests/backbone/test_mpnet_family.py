"""MPNet's configs and files as they lie on the hub, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, batch, randomise
from safetensors.torch import load_file, save_file

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel, architecture_is_masked_language
from sparse_encoder.backbone.families import read_config
from sparse_encoder.backbone.relative_bias import RelativeBiasConfig
from sparse_encoder.checkpoint import ConfigError

TINY = TINY_CONFIGS["mpnet"]
ALL_MPNET = {  # sentence-transformers/all-mpnet-base-v2
    "_name_or_path": "microsoft/mpnet-base",
    "architectures": ["MPNetForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 514,
    "model_type": "mpnet",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "relative_attention_num_buckets": 32,
    "tokenizer_class": "MPNetTokenizer",
    "torch_dtype": "float32",
    "transformers_version": "4.8.2",
    "vocab_size": 30527,
}


def test_a_config_of_the_hub() -> None:
    config = read_config(ALL_MPNET)
    assert (config.vocab_size, config.max_tokens, config.position_offset, config.norm_eps) == (30527, 512, 2, 1e-5)
    assert (config.pad_token_id, config.num_token_types, config.position_kind) == (1, 0, "after_padding")
    assert config.relative_bias == RelativeBiasConfig(num_buckets=32, max_distance=128)
    assert architecture_is_masked_language(ALL_MPNET)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pad_token_id", 0, "must be 1, got 0: positions count from it"),
        ("relative_attention_num_buckets", 64, "must be 32, got 64"),
        ("max_position_embeddings", 2, "greater than pad_token_id"),
        ("num_attention_heads", 5, "must divide the hidden size 12"),
        ("is_decoder", True, "only encoders"),
        ("architectures", ["RobertaModel"], "choose from"),
    ],
)
def test_a_bad_value_is_refused_by_key(key: str, value: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(ConfigError, match=message) as caught:
        read_config({**TINY, key: value})
    assert caught.value.field == key


def test_files_of_older_checkpoints(tmp_path: Path) -> None:
    model = MaskedLanguageModel.from_config(TINY).eval()
    randomise(model)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["mpnet.encoder.relative_attention_bias.weight"].shape == (32, 2)
    more = {
        "mpnet.embeddings.position_ids": torch.arange(26)[None],
        "mpnet.pooler.dense.weight": torch.ones(12, 12),
        "mpnet.pooler.dense.bias": torch.ones(12),
        "lm_head.decoder.weight": tensors["mpnet.embeddings.word_embeddings.weight"].clone(),
        "lm_head.decoder.bias": tensors["lm_head.bias"].clone(),
    }
    save_file({**tensors, **more}, tmp_path / "model.safetensors")
    features = batch(0, pad=1)
    assert torch.equal(MaskedLanguageModel.from_pretrained(tmp_path)(**features), model(**features))
    bare = {
        name.removeprefix("mpnet."): tensor for name, tensor in {**tensors, **more}.items() if "lm_head" not in name
    }
    save_file(bare, tmp_path / "model.safetensors")
    encoder = EncoderModel.from_pretrained(tmp_path)
    assert torch.equal(encoder(**features), model.backbone(**features))
    assert encoder.load_report is not None
    assert encoder.load_report.ignored == ("embeddings.position_ids", "pooler.dense.bias", "pooler.dense.weight")


def test_the_bias_is_one_for_all_layers_and_counts_places_not_positions() -> None:
    model = EncoderModel.from_config(TINY).eval()
    randomise(model)
    table = model.backbone.relative_bias
    assert table is not None
    calls: list[torch.Tensor] = []
    table.register_forward_hook(lambda module, inputs, output: calls.append(output))
    features = batch(0, pad=1)
    places = torch.arange(9).expand(3, 9) + 2
    with torch.no_grad():
        model(**features, position_ids=places)
        model(**features, position_ids=places.flip(1))
    assert len(calls) == 2 and calls[0].shape == (3, 2, 9, 9)
    assert torch.equal(calls[0], calls[1])
