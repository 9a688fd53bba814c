"""Generation configs as they are published load, and slips in them are told."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from decoder_helpers import DECODER_CONFIGS

from sparse_encoder.checkpoint import ConfigError
from sparse_encoder.generation import CausalLanguageModel, GenerationConfig
from sparse_encoder.generation.config_fields import IDLE_CACHES, FieldError

PUBLISHED: dict[str, dict[str, Any]] = {
    "gpt2 of 4.26": {
        "_from_model_config": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "transformers_version": "4.26.0",
    },
    "bart of 4.27": {
        "bos_token_id": 0,
        "decoder_start_token_id": 2,
        "early_stopping": True,
        "eos_token_id": 2,
        "forced_bos_token_id": 0,
        "forced_eos_token_id": 2,
        "no_repeat_ngram_size": 3,
        "num_beams": 4,
        "pad_token_id": 1,
    },
    "a draft model of 4.38": {"num_assistant_tokens": 5, "num_assistant_tokens_schedule": "heuristic"},
    "a draft model of 4.46": {
        "assistant_confidence_threshold": 0.3,
        "is_assistant": True,
        "num_assistant_tokens": 20,
        "num_assistant_tokens_schedule": "constant",
    },
    "gemma of 4.51": {"cache_implementation": "hybrid", "do_sample": True, "eos_token_id": [1, 3], "top_k": 64},
    "all of 4.31": {
        "diversity_penalty": 0.5,
        "encoder_repetition_penalty": 1.0,
        "eta_cutoff": 0.0,
        "force_words_ids": None,
        "generation_kwargs": {},
        "guidance_scale": None,
        "low_memory": True,
        "num_beam_groups": 1,
        "penalty_alpha": None,
        "renormalize_logits": False,
        "temperature": 1,
        "typical_p": 1.0,
    },
    "whisper of 4.41": {
        "alignment_heads": [[1, 2]],
        "begin_suppress_tokens": [5, 6],
        "forced_decoder_ids": [[1, None]],
        "lang_to_id": {"<|af|>": 3},
        "max_initial_timestamp_index": 50,
        "no_timestamps_token_id": 4,
        "prev_sot_token_id": 7,
        "return_timestamps": False,
    },
    "nothing ends it": {"eos_token_id": -1, "bos_token_id": 1},
    "one of two never comes": {"eos_token_id": [-1, 4]},
    "speed alone": {"disable_compile": True, "low_memory": False, "prefill_chunk_size": 64},
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_published_file_loads_and_is_written_again(name: str, tmp_path: Path) -> None:
    values = PUBLISHED[name]
    CausalLanguageModel.from_config(DECODER_CONFIGS["llama"]).save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = CausalLanguageModel.from_pretrained(tmp_path)
        model.save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again/generation_config.json").read_text())
    kept = {key: value for key, value in values.items() if value is not None and key in written}
    assert {key: written[key] for key in kept} == {**kept, **({"eos_token_id": [4]} if name.startswith("one") else {})}
    left_out = {"_from_model_config", "transformers_version", "is_assistant", "num_assistant_tokens_schedule"}
    neutral = {"num_assistant_tokens", "num_beam_groups", "low_memory", "disable_compile"}
    assert {key for key, value in values.items() if value is not None} - kept.keys() <= left_out | neutral


def test_an_end_that_no_text_has_takes_ends_away_and_of_a_model_is_none(tmp_path: Path) -> None:
    for value, of_file, of_model in ((-1, -1, None), ([-1], -1, None), ([-1, 4], [4], [4]), (4, 4, 4)):
        assert GenerationConfig.from_dict({"eos_token_id": value}).eos_token_id == of_file
        assert GenerationConfig.from_model_config({"eos_token_id": value}).eos_token_id == of_model
    GenerationConfig(eos_token_id=-1).save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == -1
    assert GenerationConfig.from_dict({"pad_token_id": -1}).pad_token_id is None
    for number in (-1.0, [-1.0], True):
        for make in (GenerationConfig.from_dict, lambda values: GenerationConfig(**values)):
            with pytest.raises(FieldError, match="eos_token_id must be an integer of 64 bits"):
                make({"eos_token_id": number})
    model = CausalLanguageModel.from_config({**DECODER_CONFIGS["llama"], "eos_token_id": -1})
    assert model.generation_config.eos_token_id is None
    assert GenerationConfig(eos_token_id=-1).eos_token_id == -1  # takes the ends of a model away, as None does not
    with pytest.raises(FieldError, match=r"eos_token_id must be a token id of at least 0.*None for no end token"):
        GenerationConfig(eos_token_id=[3, -1])


@pytest.mark.parametrize("kind", IDLE_CACHES)
def test_caches_of_other_kinds_are_kept_in_files_alone(kind: str) -> None:
    config = GenerationConfig.from_dict({"cache_implementation": kind})
    assert config.cache_implementation is None
    assert config.to_diff_dict() == {"cache_implementation": kind}
    config.cache_implementation = "static"
    assert config.to_diff_dict() == {"cache_implementation": "static"}
    with pytest.raises(FieldError, match=f"cache_implementation must be one of .*got '{kind}'"):
        GenerationConfig(cache_implementation=kind)
    with pytest.raises(FieldError, match="cache_implementation must be one of"):
        GenerationConfig.from_dict({"cache_implementation": "quantized"})


def test_what_a_file_has_is_taken_away_by_an_update() -> None:
    config = GenerationConfig.from_dict({"low_memory": True, "chat_format": "x"})
    assert config.update(low_memory=None, other=1) == {"other": 1}
    assert config.to_diff_dict() == {"chat_format": "x"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [("temprature", "temperature"), ("max_new_token", "max_new_tokens"), ("do_samples", "do_sample")],
)
def test_a_slip_in_a_file_is_told(name: str, meant: str, tmp_path: Path) -> None:
    message = f"{name!r} is no field of a generation config and does nothing: did you mean {meant!r}?"
    with pytest.warns(UserWarning) as caught:
        GenerationConfig.from_dict({name: 1})
    assert [str(each.message) for each in caught] == [message]
    (tmp_path / "generation_config.json").write_text(json.dumps({name: 1}))
    with pytest.warns(UserWarning, match="did you mean"):
        GenerationConfig.from_pretrained(tmp_path)


def test_the_documented_call_that_returns_what_is_no_field(tmp_path: Path) -> None:
    GenerationConfig(num_beams=2).save_pretrained(tmp_path)
    config, unused = GenerationConfig.from_pretrained(
        tmp_path, top_k=1, foo=False, do_sample=True, return_unused_kwargs=True
    )
    assert config.to_diff_dict() == {"num_beams": 2, "top_k": 1, "do_sample": True}
    assert unused == {"foo": False}
    with pytest.raises(TypeError, match="no field 'foo'"):
        GenerationConfig.from_pretrained(tmp_path, top_k=1, foo=False, do_sample=True)


def test_the_text_of_a_config() -> None:
    config = GenerationConfig.from_dict({"top_k": 5, "sequence_bias": [[[1, 2], 0.5]], "chat_format": "\u00e9"})
    values = json.loads(config.to_json_string())
    assert values.pop("sparse_encoder_version")
    assert values == {"top_k": 5, "sequence_bias": [[[1, 2], 0.5]], "chat_format": "\u00e9"}
    assert json.loads(config.to_json_string(use_diff=False))["top_p"] is None
    with pytest.raises(FieldError, match="sequence_bias must be finite"):
        GenerationConfig(sequence_bias={(1,): float("inf")}).to_json_string()


def test_what_is_said_of_fields_that_are_refused_in_files(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"guidance_scale": 3.0}')
    with pytest.raises(ConfigError, match="'guidance_scale': is not offered"):
        GenerationConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"force_download": "yes"}, "force_download must be True or False, got 'yes'"),
        ({"local_files_only": 1}, "local_files_only must be True or False, got 1"),
        ({"revision": 3}, "revision must be a branch, a tag or a commit, got 3"),
        ({"subfolder": 3}, "subfolder must be the path of a folder, got 3"),
    ],
)
def test_options_of_the_hub_of_another_type_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    GenerationConfig(num_beams=3).save_pretrained(tmp_path)
    with pytest.raises(TypeError, match=message):
        GenerationConfig.from_pretrained(tmp_path, **options)
    assert GenerationConfig.from_pretrained(tmp_path, subfolder=None).num_beams == 3  # type: ignore[arg-type]
