"""What is read out of the config of an encoder with a decoder, and what is refused in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS
from seq2seq_helpers import SEQ2SEQ_CONFIGS, D, decoder_ids, encoder_batch

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel
from sparse_encoder.backbone.families import SEQ2SEQ_FAMILIES, family_of, read_config
from sparse_encoder.backbone.weights import names_of
from sparse_encoder.checkpoint import ConfigError, read_json_object
from sparse_encoder.generation.seq2seq_model import Seq2SeqModel

T5, BART = SEQ2SEQ_CONFIGS["t5"], SEQ2SEQ_CONFIGS["bart"]


def test_the_families_are_these() -> None:
    assert sorted(SEQ2SEQ_FAMILIES) == ["bart", "mt5", "t5"]


@pytest.mark.parametrize("name", SEQ2SEQ_CONFIGS)
def test_every_tensor_has_a_name_in_the_family_and_back(name: str) -> None:
    model = Seq2SeqModel.from_config(SEQ2SEQ_CONFIGS[name])
    table = names_of(model.family, model.config, model.head_rows(model.family)).own
    theirs = [table.theirs(ours) for ours in model.state_dict()]
    assert len(set(theirs)) == len(theirs)
    assert [table.ours(key) for key in theirs] == list(model.state_dict())


def test_the_two_stacks_of_t5() -> None:
    config = read_config(T5)
    decoder = config.decoder
    assert decoder is not None and decoder.decoder is None
    assert (config.num_layers, decoder.num_layers, config.head_size, config.attention_scale) == (2, 3, 5, 1.0)
    assert config.relative_bias is not None and decoder.relative_bias is not None
    assert (config.relative_bias.bidirectional, decoder.relative_bias.bidirectional) == (True, False)
    assert not config.causal and not config.cross_attention and config.own_words
    assert decoder.causal and decoder.cross_attention and not decoder.own_words
    assert (config.activation, config.gated, config.norm_kind, config.norm_eps) == ("relu", False, "rms", 1e-6)
    assert config.head_scale == D**-0.5 and config.tie_word_embeddings


@pytest.mark.parametrize(
    ("changes", "tied", "scale"),
    [
        ({}, True, D**-0.5),
        ({"tie_word_embeddings": False}, False, 1.0),
        ({"scale_decoder_outputs": False}, True, 1.0),  # as transformers 5 writes what was v1.1
        ({"tie_word_embeddings": False, "scale_decoder_outputs": True}, False, D**-0.5),
    ],
)
def test_the_head_of_t5_is_scaled_if_it_is_tied_or_the_config_says_so(
    changes: dict[str, Any], tied: bool, scale: float
) -> None:
    config = read_config({**T5, **changes})
    assert (config.tie_word_embeddings, config.head_scale) == (tied, scale)
    written = Seq2SeqModel.from_config({**T5, **changes}).hf_config
    assert written["scale_decoder_outputs"] is (scale != 1)
    assert read_config(written) == config


@pytest.mark.parametrize(
    ("text", "activation", "gated"),
    [("relu", "relu", False), ("gated-gelu", "gelu_new", True), ("gelu", "gelu", False), ("gated-silu", "silu", True)],
)
def test_the_feed_forward_of_t5(text: str, activation: str, gated: bool) -> None:
    config = read_config({**T5, "feed_forward_proj": text})
    assert (config.activation, config.gated) == (activation, gated)


def test_mt5_is_gated_and_its_head_reads_hidden_states_as_they_are() -> None:
    plain = {key: value for key, value in T5.items() if key not in ("vocab_size", "num_heads", "d_ff", "num_layers")}
    config = read_config({**plain, "model_type": "mt5"})
    assert (config.vocab_size, config.num_layers, config.num_heads, config.intermediate_size) == (250112, 8, 6, 1024)
    assert (config.activation, config.gated, config.head_scale) == ("gelu_new", True, 1.0)
    with pytest.raises(ConfigError, match="reads hidden states as they are"):
        read_config({**plain, "model_type": "mt5", "scale_decoder_outputs": True})


def test_layers_of_bart_are_left_out_in_training_as_often_as_the_config_says() -> None:
    dropping = {"encoder_layerdrop": 0.5, "decoder_layerdrop": 0.25, "dropout": 0.0, "normalize_embedding": False}
    model = Seq2SeqModel.from_config({**BART, **dropping})
    stacks = (model.backbone, model.decoder)
    assert [stack.config.layer_dropout for stack in stacks] == [0.5, 0.25]
    runs = [0, 0]
    for number, stack in enumerate(stacks):
        for layer in stack.layers:
            layer.register_forward_hook(lambda *_, number=number: runs.__setitem__(number, runs[number] + 1))
    batch = {**encoder_batch(left=False, pad=1), "decoder_input_ids": decoder_ids()}
    torch.manual_seed(5)
    model.train()
    for _ in range(60):
        model(**batch)
    assert 45 <= runs[0] <= 75 and 120 <= runs[1] <= 150  # of 120 and 180, at deviations of 5.5 and 5.8
    runs[:] = [0, 0]
    model(**batch, use_cache=True)
    assert runs[1] == 3  # each layer of a cache must have all its tokens
    runs[:] = [0, 0]
    model.eval()(**batch)
    assert runs == [2, 3]


@pytest.mark.parametrize(
    ("values", "is_there"),
    [(T5, True), ({**T5, "dropout_rate": 0.0}, False), (BART, False), (TINY_CONFIGS["bert"], False)],
)
def test_a_dropout_behind_the_last_norm_is_there_where_the_config_asks_for_one(
    values: dict[str, Any], is_there: bool
) -> None:
    kind = Seq2SeqModel if values is BART else EncoderModel
    backbone = kind.from_config(values).backbone
    assert (backbone.final_dropout is not None) is is_there
    assert ("final_dropout" in dict(backbone.named_children())) is is_there


@pytest.mark.parametrize("model_type", ["umt5", "mbart"])
def test_families_that_are_not_known_are_refused_with_those_that_are(model_type: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown model type '{model_type}'; choose from .*'bart'.*'mt5'.*'t5'"):
        read_config({**T5, "model_type": model_type})


def test_the_two_stacks_of_bart() -> None:
    config = read_config(BART)
    decoder = config.decoder
    assert decoder is not None
    assert (config.num_layers, config.num_heads, config.intermediate_size) == (2, 2, 20)
    assert (decoder.num_layers, decoder.num_heads, decoder.intermediate_size) == (3, 3, 28)
    assert config.first_position == 2 and config.max_tokens == 26 and config.logits_bias
    scaled = read_config({**BART, "scale_embedding": True})
    assert (config.embedding_scale, scaled.embedding_scale) == (1.0, D**0.5)


@pytest.mark.parametrize(
    ("base", "key", "value", "message"),
    [
        (T5, "d_model", -1, "between 1 and 65536, got -1"),
        (T5, "d_model", "12", "must be an integer, got '12'"),
        (T5, "d_kv", 0, "between 1 and"),
        (T5, "num_heads", 0, "between 1 and"),
        (T5, "num_decoder_layers", 0, "between 1 and 256, got 0"),
        (T5, "num_decoder_layers", "3", "must be an integer"),
        (T5, "num_decoder_layers", 10**6, "between 1 and 256"),
        (T5, "feed_forward_proj", "swiglu", "must be one of .*, or gated- and one of them, got 'swiglu'"),
        (T5, "feed_forward_proj", "gated-", "got 'gated-'"),
        (T5, "feed_forward_proj", "gated-gelu-new", "got 'gated-gelu-new'"),
        (T5, "feed_forward_proj", 3, "must be a string, got 3"),
        (T5, "relative_attention_num_buckets", 6, "must be a multiple of 4 up to 65536, got 6"),
        (T5, "relative_attention_num_buckets", 10**9, "must be at most 65536"),
        (T5, "relative_attention_max_distance", 4, "must be above 4 .* got 4"),
        (T5, "layer_norm_epsilon", 0.0, "greater than 0"),
        (T5, "dropout_rate", 1.0, "below 1, got 1.0"),
        (T5, "initializer_factor", float("inf"), "must be finite"),
        (T5, "is_decoder", True, "without its encoder is not supported"),
        (T5, "is_encoder_decoder", "yes", "must be true or false"),
        (T5, "scale_decoder_outputs", 1, "must be true or false, got 1"),
        (T5, "vocab_size", 0, "between 1 and"),
        (T5, "pad_token_id", 17, "between 0 and 16, got 17"),
        (BART, "is_encoder_decoder", False, "must be True, got False"),
        (BART, "is_decoder", True, "without its encoder is not supported"),
        (BART, "add_cross_attention", True, "without its encoder is not supported"),
        (BART, "decoder_attention_heads", 5, "must divide the hidden size 12, got 5"),
        (BART, "encoder_attention_heads", 5, "must divide the hidden size 12, got 5"),
        (BART, "decoder_layers", 0, "between 1 and 256, got 0"),
        (BART, "decoder_ffn_dim", None, "must be an integer"),
        (BART, "encoder_layerdrop", 1.0, "below 1, got 1.0"),
        (BART, "decoder_layerdrop", -0.1, "at least 0 and below 1, got -0.1"),
        (BART, "decoder_layerdrop", "0.1", "must be a number, got '0.1'"),
        (BART, "scale_embedding", "true", "must be true or false"),
        (BART, "normalize_before", True, "those of mBART"),
        (BART, "add_final_layer_norm", True, "that of mBART"),
        (BART, "static_position_embeddings", True, "not supported"),
        (BART, "activation_function", "swiglu", "must be one of"),
        (BART, "max_position_embeddings", 10**9, "between 1 and"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_key(
    base: dict[str, Any], key: str, value: object, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_config({**base, key: value}, Path("here/config.json"))
    assert (caught.value.field, caught.value.path) == (key, "here/config.json")


def test_an_encoder_alone_contradicts_a_model_that_writes() -> None:
    alone = {**T5, "is_encoder_decoder": False}
    assert read_config(alone).decoder is None
    assert read_config({**alone, "architectures": ["T5EncoderModel"]}).decoder is None
    with pytest.raises(ConfigError, match="must be true for a T5ForConditionalGeneration") as caught:
        read_config({**alone, "architectures": ["T5ForConditionalGeneration"]})
    assert caught.value.field == "is_encoder_decoder"
    with pytest.raises(ConfigError, match="needs an encoder and a decoder"):
        Seq2SeqModel.from_config(alone)


def test_the_name_that_early_files_have_is_that_of_today(tmp_path: Path) -> None:
    early = {**T5, "architectures": ["T5WithLMHeadModel"]}
    Seq2SeqModel.from_config(early).save_pretrained(tmp_path)
    assert read_json_object(tmp_path / "config.json")["architectures"] == ["T5ForConditionalGeneration"]
    with pytest.raises(ConfigError, match="unknown architecture 'T5WithLMHeadModel'"):
        family_of({**early, "model_type": "mt5"})


@pytest.mark.parametrize("names", [["UMT5Model"], ["T5Stack"], ["BartModel"]])
def test_a_foreign_architecture_is_refused_with_those_we_know(names: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"choose from \['T5EncoderModel', 'T5ForConditionalGeneration', 'T5Model'\]"):
        family_of({**T5, "architectures": names})


def test_kinds_of_models_without_a_decoder_say_which_has_one() -> None:
    for config in (T5, BART, {**T5, "is_encoder_decoder": False}):
        with pytest.raises(ConfigError, match="and a MaskedLanguageModel is one stack; take .*Seq2SeqModel"):
            MaskedLanguageModel.from_config(config)
    with pytest.raises(
        ConfigError,
        match=r"cannot be saved alone.* SparseEncoder is built on one of \[.*'bert'.*'t5'.*, and Seq2SeqModel",
    ):
        EncoderModel.from_config(BART)
    assert EncoderModel.from_config(T5).config.decoder is None


def test_a_sparse_encoder_on_bart_says_what_one_can_be_built_on(tmp_path: Path) -> None:
    Seq2SeqModel.from_config(BART).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"SparseEncoder is built on one of \[.*'mt5'.*'t5'") as caught:
        SparseEncoder(str(tmp_path))
    assert caught.value.path == str(tmp_path / "config.json")


def test_an_encoder_without_a_decoder_is_no_pair() -> None:
    bert = {"model_type": "bert", "vocab_size": 17, "hidden_size": 12, "num_attention_heads": 2}
    with pytest.raises(ConfigError, match=r"a bert is one stack, .*; choose from \['bart', 'mt5', 't5'\]"):
        Seq2SeqModel.from_config({**bert, "num_hidden_layers": 1, "intermediate_size": 20})
