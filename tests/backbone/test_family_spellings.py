"""What other writers call the keys of a config, its classes, and a padding that is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from backbone_helpers import TINY_CONFIGS
from decoder_helpers import DECODER_CONFIGS
from seq2seq_helpers import SEQ2SEQ_CONFIGS

from sparse_encoder.backbone.families import architecture_is_masked_language, family_of, read_config
from sparse_encoder.checkpoint import ConfigError, read_json_object
from sparse_encoder.generation import CausalLanguageModel

CONFIGS = {**TINY_CONFIGS, **DECODER_CONFIGS, **SEQ2SEQ_CONFIGS}
WITH_OTHER_KEYS = ("bart", "distilbert", "gpt2", "mt5", "t5")


def respelled(name: str) -> dict[str, Any]:
    """Write a config with the names that transformers knows for every family."""
    others = {own: other for other, own in family_of(CONFIGS[name]).other_keys.items()}
    return {others.get(key, key): value for key, value in CONFIGS[name].items()}


@pytest.mark.parametrize("name", WITH_OTHER_KEYS)
def test_other_names_of_keys_are_read(name: str) -> None:
    values = respelled(name)
    assert values != CONFIGS[name]
    assert read_config(values) == read_config(CONFIGS[name])


@pytest.mark.parametrize("name", WITH_OTHER_KEYS)
def test_two_names_of_a_key_must_agree(name: str) -> None:
    agreed = {**CONFIGS[name], **respelled(name)}
    assert read_config(agreed) == read_config(CONFIGS[name])
    with pytest.raises(ConfigError, match=r"is another name of .* and they differ: .* leave one of them out") as caught:
        read_config({**agreed, "num_hidden_layers": 7}, Path("here/config.json"))
    assert (caught.value.field, caught.value.path) == ("num_hidden_layers", "here/config.json")


def test_an_other_name_that_is_null_says_nothing() -> None:
    assert read_config({**CONFIGS["gpt2"], "hidden_size": None}) == read_config(CONFIGS["gpt2"])


def test_a_wrong_value_under_another_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be an integer, got '3'"):
        read_config({**respelled("gpt2"), "num_hidden_layers": "3"})


def test_early_llamas_are_llamas_and_written_by_the_name_of_today(tmp_path: Path) -> None:
    early = {**CONFIGS["llama"], "architectures": ["LLaMAForCausalLM"], "pad_token_id": -1}
    assert architecture_is_masked_language(early)
    model = CausalLanguageModel.from_config(early)
    assert model.config.pad_token_id is None
    model.save_pretrained(tmp_path)
    written = read_json_object(tmp_path / "config.json")
    assert written["architectures"] == ["LlamaForCausalLM"] and written["pad_token_id"] is None
    assert CausalLanguageModel.from_pretrained(tmp_path).config == model.config
    written |= {"architectures": ["LLaMAForCausalLM"], "pad_token_id": -1}
    (tmp_path / "config.json").write_text(json.dumps(written))
    (tmp_path / "generation_config.json").write_text(json.dumps({"pad_token_id": -1, "eos_token_id": 2}))
    again = CausalLanguageModel.from_pretrained(tmp_path)
    assert (again.config.pad_token_id, again.generation_config.pad_token_id) == (None, None)


@pytest.mark.parametrize("name", ["mistral", "qwen2", "qwen3"])
def test_what_is_early_in_llama_is_unknown_in_its_relatives(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown architecture 'LLaMAForCausalLM'"):
        family_of({**CONFIGS[name], "architectures": ["LLaMAForCausalLM"]})


def test_a_padding_below_zero_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(ConfigError, match="between 0 and"):
        read_config({**CONFIGS["bert"], "pad_token_id": -1})
    with pytest.raises(ConfigError, match="between 0 and"):
        read_config({**CONFIGS["llama"], "pad_token_id": -2})
