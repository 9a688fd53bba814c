"""The configuration of a model answers to the names of its file, as scripts for transformers read them."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch
from backbone_helpers import TINY_CONFIGS
from decoder_helpers import DECODER_CONFIGS
from seq2seq_helpers import SEQ2SEQ_CONFIGS

from sparse_encoder.backbone import MaskedLanguageModel, TransformerConfig
from sparse_encoder.backbone.families import read_config
from sparse_encoder.generation import CausalLanguageModel, GenerationConfig, Seq2SeqModel
from sparse_encoder.token_classification import TokenClassificationModel


@pytest.mark.parametrize("name", sorted(DECODER_CONFIGS))
def test_a_decoder_is_described_by_the_names_of_files(name: str, tmp_path: Path) -> None:
    CausalLanguageModel.from_config(DECODER_CONFIGS[name]).save_pretrained(tmp_path)
    config = CausalLanguageModel.from_pretrained(tmp_path).config
    assert config.is_encoder_decoder is False
    assert (config.bos_token_id, config.eos_token_id, config.decoder_start_token_id) == (1, 2, None)
    assert config.num_hidden_layers == 3
    assert config.num_attention_heads == config.num_heads
    assert config.num_key_value_heads == config.kv_heads
    assert config.max_position_embeddings == 40
    assert config.head_dim == config.head_size
    assert config.model_type == name
    assert config.to_dict()["model_type"] == name
    assert not hasattr(config, "temperature")
    with pytest.raises(AttributeError, match="the configuration has no 'n_experts', and neither had its file"):
        _ = config.n_experts


def test_an_encoder_with_a_decoder_too() -> None:
    model = Seq2SeqModel.from_config(SEQ2SEQ_CONFIGS["bart"])
    config = model.config
    assert config.is_encoder_decoder is True
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id, config.decoder_start_token_id) == (
        *(0, 2, 1),
        2,
    )
    assert (config.d_model, config.decoder_layers, config.num_hidden_layers) == (config.hidden_size, 3, 2)
    model.resize_token_embeddings(31)
    assert (model.config.vocab_size, model.config.eos_token_id, model.config.to_dict()["vocab_size"]) == (31, 2, 31)
    assert model.backbone.config is model.config


def test_the_documented_length_of_the_input() -> None:
    """As the documentation of compute_transition_scores has it: 1 behind an encoder, else the prompt's."""
    for kind, values in ((CausalLanguageModel, DECODER_CONFIGS["llama"]), (Seq2SeqModel, SEQ2SEQ_CONFIGS["t5"])):
        model = kind.from_config(values)
        assert (1 if model.config.is_encoder_decoder else 5) == (1 if kind is Seq2SeqModel else 5)


def test_names_of_files_are_no_part_of_what_a_transformer_is() -> None:
    model = CausalLanguageModel.from_config(DECODER_CONFIGS["llama"])
    bare = read_config(DECODER_CONFIGS["llama"])
    assert bare.eos_token_id is None
    assert model.config == bare
    assert hash(model.config) == hash(bare)
    assert repr(model.config) == repr(bare)
    for other in (copy.deepcopy(model.config), pickle.loads(pickle.dumps(model.config)), replace(model.config)):
        assert other == bare
        assert other.eos_token_id == 2
    values = model.config.to_dict()
    values["eos_token_id"] = 9
    assert model.config.eos_token_id == 2


def test_encoders_and_taggers_answer_as_well() -> None:
    values = {**TINY_CONFIGS["bert"], "cls_token_id": 3}
    for model in (MaskedLanguageModel.from_config(values), TokenClassificationModel.from_config(values)):
        assert model.config.model_type == "bert"
        assert model.config.num_hidden_layers == values["num_hidden_layers"]
        assert (model.config.cls_token_id, model.config.eos_token_id) == (3, None)


def test_what_is_assigned_is_told_where_it_belongs() -> None:
    message = "use_cache=False: set it for generation, model.generation_config.use_cache = False, or in the call"
    model = CausalLanguageModel.from_config(DECODER_CONFIGS["llama"])
    tagger = TokenClassificationModel.from_config(TINY_CONFIGS["bert"])
    for config in (model.config, tagger.config, TransformerConfig(**SIZES)):
        with pytest.raises(FrozenInstanceError, match=message):
            config.use_cache = False  # type: ignore[attr-defined]
    with pytest.raises(FrozenInstanceError, match=r"model.generation_config.pad_token_id = 2, or in the call"):
        model.config.pad_token_id = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError, match=r"from_pretrained\(..., num_layers=...\)"):
        model.config.num_layers = 1  # type: ignore[misc]


SIZES = {
    "vocab_size": 17,
    "hidden_size": 12,
    "num_layers": 1,
    "num_heads": 2,
    "intermediate_size": 20,
    "max_positions": 9,
}


def test_a_generation_config_is_made_of_a_models_config() -> None:
    values = {**DECODER_CONFIGS["llama"], "eos_token_id": [2, 3], "max_length": 30}
    model = CausalLanguageModel.from_config(values)
    config = GenerationConfig.from_model_config(model.config)
    assert config.to_diff_dict() == {"bos_token_id": 1, "eos_token_id": [2, 3], "max_length": 30}
    assert config == GenerationConfig.from_model_config(values)


@pytest.mark.parametrize(("kind", "values"), [(CausalLanguageModel, "llama"), (Seq2SeqModel, "t5")])
def test_a_model_is_loaded_with_a_generation_config(kind: type, values: str, tmp_path: Path) -> None:
    model = kind.from_config({**DECODER_CONFIGS, **SEQ2SEQ_CONFIGS}[values])
    model.generation_config.num_beams = 3
    model.save_pretrained(tmp_path)
    given = GenerationConfig(max_new_tokens=4)
    loaded = kind.from_pretrained(tmp_path, generation_config=given)
    assert loaded.generation_config == given
    loaded.generation_config.max_new_tokens = 5
    assert given.max_new_tokens == 4
    assert kind.from_pretrained(tmp_path).generation_config.num_beams == 3
    with pytest.raises(TypeError, match=r"takes \['num_beams', 'top_k'\] in a config: .*GenerationConfig\(num_beams="):
        kind.from_pretrained(tmp_path, top_k=2, num_beams=3)
    with pytest.raises(TypeError, match="generation_config must be a sparse_encoder.generation.GenerationConfig"):
        kind.from_pretrained(tmp_path, generation_config={"max_new_tokens": 4})


def test_outputs_as_tuples() -> None:
    ids = torch.tensor([[3, 5, 4]])
    causal = CausalLanguageModel.from_config(DECODER_CONFIGS["llama"]).eval()
    pair = Seq2SeqModel.from_config(SEQ2SEQ_CONFIGS["t5"]).eval()
    for model, given in ((causal, {}), (pair, {"decoder_input_ids": ids})):
        named = model(input_ids=ids, use_cache=False, output_attentions=True, **given)
        again = model(input_ids=ids, use_cache=False, output_attentions=True, return_dict=True, **given)
        plain = model(input_ids=ids, use_cache=False, output_attentions=True, return_dict=False, **given)
        assert type(again) is type(named)
        assert type(plain) is tuple
        assert len(plain) == len(named)
        assert torch.equal(plain[0], named.logits)
        assert torch.equal(plain[1][0], named[1][0])
