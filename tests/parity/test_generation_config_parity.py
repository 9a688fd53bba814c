"""Generation configs: the same defaults, errors and complaints as transformers, and files that both read."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from sparse_encoder.generation import GenerationConfig
from sparse_encoder.generation.config_fields import ARGUMENTS_OF_GENERATE, CACHES, DEFAULTS, FIELDS, NOT_OFFERED
from sparse_encoder.generation.config_rules import minor_issues

pytest.importorskip("transformers")
from transformers import GenerationConfig as PeerConfig

Values = dict[str, Any]  # fields of a config


def quietly(values: Values) -> GenerationConfig:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return GenerationConfig(**values)


def test_every_field_of_the_peer_is_a_field_or_refused_by_name() -> None:
    theirs = {name for name in PeerConfig().to_dict() if not name.startswith("_")} - {"transformers_version"}
    assert theirs == FIELDS.keys() | NOT_OFFERED.keys()
    assert not FIELDS.keys() & NOT_OFFERED.keys()


def test_defaults() -> None:
    theirs = PeerConfig._get_default_generation_params()
    assert {name: value for name, value in theirs.items() if name in FIELDS and value is not None} == DEFAULTS
    for name in theirs.keys() & NOT_OFFERED.keys():
        GenerationConfig(**{name: theirs[name]})


def test_a_fresh_config_says_nothing_in_both() -> None:
    theirs = PeerConfig().to_dict()
    assert {name: theirs[name] for name in FIELDS} == GenerationConfig().to_dict()


WRONG: list[Values] = [
    {"early_stopping": "soon"},
    {"max_new_tokens": 0},
    {"max_new_tokens": -3},
    {"num_return_sequences": 2},
    {"num_return_sequences": 2, "num_beams": 1},
    {"num_return_sequences": 3, "num_beams": 2},
    {"num_return_sequences": 3, "num_beams": 2, "do_sample": True},
    {"cache_implementation": "magic"},
    {"suppress_tokens": [1, 2], "forced_eos_token_id": 2},
    {"suppress_tokens": [1, 2], "forced_eos_token_id": [1, 2]},
    {"suppress_tokens": [1, 2], "forced_bos_token_id": 1},
    {"compile_config": "fast"},
    *({name: None} for name in ARGUMENTS_OF_GENERATE if name not in ("generator", "tokenizer")),
]


@pytest.mark.parametrize("values", WRONG, ids=str)
def test_what_the_peer_refuses_is_refused(values: Values) -> None:
    with pytest.raises(ValueError):
        PeerConfig(**values)
    with pytest.raises(ValueError, match=next(iter(values)) if len(values) == 1 else "must"):
        GenerationConfig(**values)


RIGHT: list[Values] = [
    {"num_return_sequences": 3, "do_sample": True},
    {"num_return_sequences": 2, "num_beams": 2},
    {"suppress_tokens": [1], "forced_eos_token_id": [1, 2]},
    {"suppress_tokens": [], "forced_eos_token_id": 2},
    *({"early_stopping": value, "num_beams": 2} for value in (True, False, "never")),
    *({"cache_implementation": value} for value in CACHES),
]


@pytest.mark.parametrize("values", RIGHT, ids=str)
def test_what_the_peer_takes_is_taken(values: Values) -> None:
    theirs, mine = PeerConfig(**values).to_dict(), GenerationConfig(**values).to_dict()
    assert {name: theirs[name] for name in FIELDS} == mine


NO_EFFECT: list[Values] = [
    {"temperature": 0.5},
    {"temperature": 1.0},
    {"temperature": 0.5, "do_sample": True},
    {"top_p": 0.9},
    {"top_p": 1.0},
    {"min_p": 0.0},
    {"top_h": 0.4},
    {"typical_p": 0.9},
    {"top_k": 50},
    {"top_k": 7},
    {"top_k": 0},
    {"epsilon_cutoff": 0.1},
    {"eta_cutoff": 0.1},
    {"early_stopping": True},
    {"early_stopping": False},
    {"length_penalty": 2.0},
    {"length_penalty": 2.0, "num_beams": 2},
    {"pad_token_id": -1},
    {"use_cache": False, "cache_implementation": "static"},
    *({name: True} for name in ("output_attentions", "output_hidden_states", "output_scores", "output_logits")),
    {"output_scores": True, "return_dict_in_generate": True},
]


@pytest.mark.parametrize("values", NO_EFFECT, ids=str)
def test_what_has_no_effect_is_told_as_the_peer_tells_it(values: Values) -> None:
    try:
        PeerConfig(**values).validate(strict=True)
        complains = False
    except ValueError:
        complains = True
    config = quietly(values)
    assert bool(minor_issues(config)) is complains
    if complains:
        with pytest.warns(UserWarning, match=next(iter(minor_issues(config)))):
            GenerationConfig(**values)
        with pytest.raises(ValueError, match=next(iter(minor_issues(config)))):
            config.validate(strict=True)


SAVED: list[Values] = [
    {},
    {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [3, 4], "pad_token_id": 0},
    {"num_beams": 4, "early_stopping": "never", "length_penalty": -1.0, "bad_words_ids": [[1, 2], [3]]},
    {"exponential_decay_length_penalty": (3, 1.5), "stop_strings": ["a", "b"], "max_time": 2.5},
    {"return_dict_in_generate": True, "output_scores": True, "cache_implementation": "static", "max_cache_len": 9},
    {"sequence_bias": [[[1, 2], 3.0], [[4], -1.5]], "suppress_tokens": [5], "forced_bos_token_id": 1},
]


@pytest.mark.parametrize("values", SAVED, ids=str)
def test_files_go_both_ways(values: Values, tmp_path: Path) -> None:
    mine = GenerationConfig(**values)
    mine.save_pretrained(tmp_path)
    theirs = PeerConfig.from_pretrained(tmp_path)
    kept = json.loads((tmp_path / "generation_config.json").read_text())
    assert {name for name in kept if name != "sparse_encoder_version"} == values.keys()
    assert GenerationConfig(**{name: value for name, value in theirs.to_dict().items() if name in FIELDS}) == mine
    PeerConfig(**values).save_pretrained(tmp_path / "peer")
    assert GenerationConfig.from_pretrained(tmp_path / "peer") == mine


def test_from_the_configuration_of_a_model() -> None:
    values = {
        "model_type": "bart",
        "decoder_start_token_id": 2,
        "eos_token_id": 2,
        "pad_token_id": 1,
        "forced_eos_token_id": 2,
        "max_length": 62,
        "no_repeat_ngram_size": 3,
        "num_beams": 4,
        "early_stopping": True,
        "hidden_size": 16,
        "output_attentions": True,
        "decoder": {"bos_token_id": 7, "pad_token_id": 9},
    }
    theirs, mine = PeerConfig.from_model_config(dict(values)), GenerationConfig.from_model_config(values)
    assert {name: theirs.to_dict()[name] for name in FIELDS} == mine.to_dict()
    assert mine.bos_token_id == 7
    assert mine.return_dict_in_generate is True
