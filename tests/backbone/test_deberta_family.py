"""DeBERTa's configs as they lie on the hub, its two namings of the head, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS, batch, randomise
from safetensors.torch import load_file, save_file

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel
from sparse_encoder.backbone.convolution import ConvolutionConfig
from sparse_encoder.backbone.disentangled import DisentangledConfig
from sparse_encoder.backbone.families import architecture_is_masked_language, family_of, read_config
from sparse_encoder.checkpoint import CheckpointError, ConfigError, write_json

TINY = TINY_CONFIGS["deberta-v2"]
V3_BASE: dict[str, Any] = {  # microsoft/deberta-v3-base; it names no architectures
    "model_type": "deberta-v2",
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "layer_norm_eps": 1e-7,
    "max_relative_positions": -1,
    "position_biased_input": False,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 0,
    "vocab_size": 128100,
}
V2_XLARGE = {
    **V3_BASE,
    "attention_head_size": 64,
    "hidden_size": 1536,
    "num_attention_heads": 24,
    "conv_kernel_size": 3,
    "conv_act": "gelu",
    "pooler_dropout": 0,
    "pooler_hidden_act": "gelu",
}
PLACES = DisentangledConfig(
    content_to_position=True,
    position_to_content=True,
    max_distance=512,
    num_buckets=256,
    norm=True,
    shared_projections=True,
    dropout=0.1,
)


def test_the_config_of_the_third_version() -> None:
    config = read_config(V3_BASE)
    assert (config.num_layers, config.hidden_size, config.vocab_size, config.norm_eps) == (12, 768, 128100, 1e-7)
    assert (config.position_kind, config.max_tokens, config.num_token_types) == ("none", 512, 0)
    assert config.disentangled == PLACES
    assert config.disentangled.span == 256
    assert (config.convolution, config.relative_bias, config.tie_word_embeddings) == (None, None, True)
    assert not architecture_is_masked_language(V3_BASE)
    assert architecture_is_masked_language({**V3_BASE, "architectures": ["DebertaV2ForMaskedLM"]})


def test_the_config_of_the_second_version() -> None:
    config = read_config(V2_XLARGE)
    assert config.disentangled == PLACES
    assert config.convolution == ConvolutionConfig(window=3, groups=1, activation="gelu", dropout=0.1)


@pytest.mark.parametrize("written", ["p2c|c2p", "C2P | p2c", ["p2c", "c2p"], ["c2p", "p2c", "none"]])
def test_terms_are_a_list_or_a_string_with_bars(written: Any) -> None:  # noqa: ANN401
    assert read_config({**V3_BASE, "pos_att_type": written}) == read_config(V3_BASE)


def test_numbers_below_one_stand_for_those_of_the_config() -> None:
    config = read_config({**TINY, "max_relative_positions": 0, "position_buckets": 0, "max_position_embeddings": 40})
    assert config.disentangled is not None
    assert (config.disentangled.max_distance, config.disentangled.num_buckets, config.disentangled.span) == (40, 0, 40)


def test_a_table_of_positions_is_there_if_the_config_says_so() -> None:
    assert read_config({**TINY, "position_biased_input": True}).position_kind == "absolute"
    model = EncoderModel.from_config(TINY)
    assert model.backbone.embeddings.position is None
    ids = torch.ones(2, 41, dtype=torch.long)
    assert model(ids, torch.ones(2, 41)).shape == (2, 41, 12)  # there is no table that ends


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pos_att_type", "p2p", r"unknown \['p2p'\]; choose from \['c2p', 'p2c'\]"),
        ("pos_att_type", 3, "must be a list of strings"),
        ("pos_att_type", "none", "must name any of"),
        ("norm_rel_ebd", "rms_norm", "unknown"),
        ("relative_attention", False, "must be true for pos_att_type"),
        ("relative_attention", "yes", "must be true or false"),
        ("position_buckets", 7, "must be even, got 7"),
        ("position_buckets", 10**9, "must be at most"),
        ("position_buckets", 2.5, "must be an integer"),
        ("max_relative_positions", 10**9, "must be at most"),
        ("share_att_key", 1, "must be true or false"),
        ("position_biased_input", None, "must be true or false"),
        ("attention_head_size", 5, "must be 3, got 5"),
        ("conv_kernel_size", 4, "must be odd, got 4"),
        ("conv_kernel_size", 10**6, "must be at most"),
        ("conv_kernel_size", None, "must be an integer"),
        ("conv_groups", 5, "must divide the hidden size 12, got 5"),
        ("conv_groups", 0, "must be between 1"),
        ("conv_act", "sharp", "must be one of"),
        ("embedding_size", 0, "must be between 1"),
        ("legacy", "no", "must be true or false"),
    ],
)
def test_a_bad_value_is_refused_by_file_and_key(key: str, value: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(ConfigError, match=message) as caught:
        read_config({**TINY, "conv_kernel_size": 3, key: value}, Path("here/config.json"))
    assert (caught.value.path, caught.value.field) == ("here/config.json", key)


def test_the_newer_head_reads_the_hidden_size() -> None:
    with pytest.raises(ConfigError, match="must be 12, got 8: the head reads the hidden size"):
        read_config({**TINY, "legacy": False, "embedding_size": 8})


def test_the_newer_head_is_tied_whatever_the_config_says() -> None:
    assert read_config({**TINY, "legacy": False, "tie_word_embeddings": False}).tie_word_embeddings
    assert not read_config({**TINY, "tie_word_embeddings": False}).tie_word_embeddings


def save(config: dict[str, Any], folder: Path) -> MaskedLanguageModel:
    model = MaskedLanguageModel.from_config(config)
    randomise(model)
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("legacy", [True, False])
def test_each_setting_reads_the_names_of_the_other(legacy: bool, tmp_path: Path) -> None:
    model = save({**TINY, "legacy": not legacy}, tmp_path)
    names = {name for name in load_file(tmp_path / "model.safetensors") if "deberta" not in name}
    assert all(name.startswith("lm_predictions.lm_head." if legacy else "cls.predictions.") for name in names)
    write_json(tmp_path / "config.json", {**TINY, "legacy": legacy})
    again = MaskedLanguageModel.from_pretrained(tmp_path)
    features = batch(0, pad=0)
    assert torch.equal(again(**features), model(**features))
    again.save_pretrained(tmp_path / "again")
    names = {name for name in load_file(tmp_path / "again/model.safetensors") if "deberta" not in name}
    assert all(name.startswith("cls.predictions." if legacy else "lm_predictions.lm_head.") for name in names)
    assert len(names) == 5


def test_files_of_the_first_checkpoints(tmp_path: Path) -> None:
    """As microsoft/deberta-v3-base: Microsoft's head, the head of its pretraining, buffers, a pooler."""
    model = save({**TINY, "legacy": False}, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    more = ["dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias", "classifier.weight", "classifier.bias"]
    left_aside = {f"mask_predictions.{name}": torch.ones(1) for name in more}
    left_aside |= {"pooler.dense.weight": torch.ones(12, 12), "pooler.dense.bias": torch.ones(12)}
    left_aside["deberta.embeddings.position_ids"] = torch.arange(26)[None]
    left_aside["deberta.embeddings.position_embeddings.weight"] = torch.ones(26, 12)
    save_file({**tensors, **left_aside}, tmp_path / "model.safetensors")
    write_json(tmp_path / "config.json", TINY)
    again = MaskedLanguageModel.from_pretrained(tmp_path)
    features = batch(0, pad=0)
    assert torch.equal(again(**features), model(**features))
    assert again.load_report is not None
    assert set(again.load_report.ignored) == set(left_aside)
    encoder = EncoderModel.from_pretrained(tmp_path)
    assert torch.equal(encoder(**features), model.backbone(**features))


def test_two_heads_in_one_file_are_refused(tmp_path: Path) -> None:
    save(TINY, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    other = {"lm_predictions.lm_head.bias": tensors["cls.predictions.bias"].clone()}
    save_file({**tensors, **other}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="one parameter stored twice"):
        MaskedLanguageModel.from_pretrained(tmp_path)


def test_a_missing_head_is_named_as_the_config_has_it(tmp_path: Path) -> None:
    EncoderModel.from_config({**TINY, "legacy": False}).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"missing tensors: lm_predictions\.lm_head\.LayerNorm\.bias"):
        MaskedLanguageModel.from_pretrained(tmp_path)


def test_the_newer_naming_is_a_family_of_its_own() -> None:
    older, newer = family_of(TINY), family_of({**TINY, "legacy": False})
    assert older is family_of({**TINY, "legacy": True})
    assert [ours for _, ours in older.head_rows if ours != "head.bias"] == [
        ours for _, ours in newer.head_rows if ours != "head.bias"
    ]
    assert (older.decoder_bias_copy, newer.decoder_bias_copy) == ("cls.predictions.decoder.bias", None)


@pytest.mark.parametrize("name", [name for name in VARIANTS if "deberta" in name])
def test_random_weights_of_every_part(name: str) -> None:
    torch.manual_seed(0)
    model = EncoderModel.from_config({**VARIANTS[name], "initializer_range": 0.3})
    for key, parameter in model.named_parameters():
        assert not parameter.is_meta
        if key.endswith("bias"):
            assert not parameter.any(), key
        elif "norm" in key:
            assert (parameter == 1).all(), key
        elif parameter.numel() > 60:
            assert parameter.std().item() == pytest.approx(0.3, rel=0.25), key
