"""Generation configs hold checked values, say what has no effect, and survive files."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
from checkpoint_helpers import FakeHub, be_the_hub, forget_account, serving
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_encoder.checkpoint import ConfigError
from sparse_encoder.generation import GenerationConfig
from sparse_encoder.generation.config_fields import FIELDS, IDLE_IN_FILES, NOT_OFFERED, FieldError

Anything = Any  # JSON


def test_fields_are_not_set_until_they_are() -> None:
    config = GenerationConfig(max_new_tokens=5, eos_token_id=(1, 2))
    assert config.max_new_tokens == 5
    assert config.top_k is None
    assert config.eos_token_id == [1, 2]
    assert config.to_diff_dict() == {"max_new_tokens": 5, "eos_token_id": [1, 2]}
    assert set(config.to_dict()) == set(FIELDS)
    assert repr(config) == "GenerationConfig(max_new_tokens=5, eos_token_id=[1, 2])"


def test_every_field_can_be_read_and_assigned() -> None:
    config = GenerationConfig()
    for name in FIELDS:
        assert getattr(config, name) is None
        setattr(config, name, None)
    assert set(FIELDS) <= set(GenerationConfig.__annotations__)


def test_numbers_become_floats() -> None:
    config = GenerationConfig(do_sample=True, temperature=2, sequence_bias=[[[1], 3]], max_time=1)
    assert (type(config.temperature), type(config.max_time)) == (float, float)
    assert config.sequence_bias == {(1,): 3.0}
    assert type(config.sequence_bias[(1,)]) is float


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", 2.5),
        ("max_new_tokens", True),
        ("max_length", "20"),
        ("max_length", 1 << 70),
        ("do_sample", 1),
        ("do_sample", "yes"),
        ("num_beams", 0),
        ("num_return_sequences", 0),
        ("temperature", "hot"),
        ("temperature", True),
        ("temperature", float("nan")),
        ("max_time", float("inf")),
        ("early_stopping", "soon"),
        ("early_stopping", 1),
        ("eos_token_id", 1.0),
        ("eos_token_id", [1, None]),
        ("eos_token_id", "</s>"),
        ("bad_words_ids", [1, 2]),
        ("bad_words_ids", []),
        ("bad_words_ids", [[]]),
        ("bad_words_ids", [[-1]]),
        ("forced_bos_token_id", -1),
        ("forced_eos_token_id", []),
        ("forced_eos_token_id", -2),
        ("suppress_tokens", [3, -1]),
        ("begin_suppress_tokens", [-1]),
        ("bad_words_ids", {"a": 1}),
        ("suppress_tokens", 3),
        ("suppress_tokens", "3"),
        ("stop_strings", ""),
        ("stop_strings", ["a", ""]),
        ("stop_strings", [1]),
        ("cache_implementation", "quantized"),
        ("cache_implementation", ["static"]),
        ("exponential_decay_length_penalty", [1]),
        ("exponential_decay_length_penalty", [1.5, 1.0]),
        ("exponential_decay_length_penalty", "12"),
        ("max_length", -3),
        ("min_length", -4),
        ("min_new_tokens", -9),
        ("max_time", -1),
        ("max_cache_len", 0),
        ("temperature", -1),
        ("top_k", -5),
        ("top_p", 7),
        ("top_p", -0.1),
        ("min_p", -3),
        ("top_h", 0),
        ("typical_p", 0),
        ("epsilon_cutoff", 1),
        ("eta_cutoff", -0.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", -2),
        ("encoder_repetition_penalty", -1.0),
        ("no_repeat_ngram_size", -1),
        ("encoder_no_repeat_ngram_size", -1),
        ("eos_token_id", []),
        ("exponential_decay_length_penalty", [-5, 1.1]),
        ("exponential_decay_length_penalty", [5, 0.0]),
        ("sequence_bias", {}),
        ("sequence_bias", []),
        ("sequence_bias", {1: 2.0}),
        ("sequence_bias", {(): 2.0}),
        ("sequence_bias", {(-1,): 2.0}),
        ("sequence_bias", {(1,): "much"}),
        ("sequence_bias", {(1,): float("nan")}),
        ("sequence_bias", [[1, 2.0]]),
        ("sequence_bias", [[[1], 2.0, 3]]),
    ],
)
def test_wrong_values_are_refused_by_name_and_in_files(name: str, value: Anything, tmp_path: Path) -> None:
    with pytest.raises(FieldError, match=f"^{name} must") as caught:
        GenerationConfig(**{name: value})
    assert caught.value.field == name
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    try:
        text = json.dumps({name: value}, allow_nan=False)
    except (TypeError, ValueError):
        return  # JSON cannot say it
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ConfigError, match=f"generation_config.json, field '{name}': must"):
        GenerationConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("text", ["[1]", "{", '{"top_k": NaN}', '{"top_k": 1, "top_k": 2}', "\xff", "[" * 500])
def test_files_that_are_no_configs(text: str, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="generation_config.json"):
        GenerationConfig.from_pretrained(tmp_path)


def test_files_that_are_too_large_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        GenerationConfig.from_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(" " * 1_000_001)
    with pytest.raises(ConfigError, match="larger"):
        GenerationConfig.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="stay in its folder"):
        GenerationConfig.from_pretrained(tmp_path, "../config.json")
    with pytest.raises(ConfigError, match="stay in its folder"):
        GenerationConfig().save_pretrained(tmp_path, "../config.json")
    with pytest.raises(NotADirectoryError):
        GenerationConfig().save_pretrained(tmp_path / "generation_config.json")


def test_unknown_names_are_errors_that_help() -> None:
    with pytest.raises(TypeError, match="no field 'temprature'; did you mean 'temperature'"):
        GenerationConfig(temprature=0.5)
    with pytest.raises(TypeError, match="no field 'zzz'; choose from"):
        GenerationConfig().zzz = 1  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="streamer is no part of a generation config; give it to generate"):
        GenerationConfig(streamer=None)
    with pytest.raises(ValueError, match="logits_processor"):
        GenerationConfig().logits_processor = []  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(NOT_OFFERED))
def test_what_is_not_offered_is_refused_unless_it_does_nothing(name: str, tmp_path: Path) -> None:
    file = tmp_path / "generation_config.json"
    for value in (None, *NOT_OFFERED[name]):
        config = GenerationConfig(**{name: value})
        assert getattr(config, name) is None
        assert config == GenerationConfig()
        file.write_text(json.dumps({name: value}))
        assert GenerationConfig.from_pretrained(tmp_path) == config
    with pytest.raises(FieldError, match=f"{name} is not offered"):
        GenerationConfig(**{name: 7})
    with pytest.raises(FieldError, match=f"{name} is not offered"):
        GenerationConfig().update(**{name: 7})
    file.write_text(json.dumps({name: 7}))
    if name in IDLE_IN_FILES:  # it changes no token by itself, so that a model with it can be loaded
        config = GenerationConfig.from_pretrained(tmp_path)
        assert getattr(config, name) == 7
        config.save_pretrained(tmp_path / "again")
        assert json.loads((tmp_path / "again/generation_config.json").read_text())[name] == 7
        setattr(config, name, None)
        assert config == GenerationConfig()
        return
    with pytest.raises(ConfigError, match=f"field '{name}': is not offered"):
        GenerationConfig.from_pretrained(tmp_path)


def test_fields_of_a_file_that_nobody_knows_are_kept_and_do_nothing(tmp_path: Path) -> None:
    values = {"top_k": 5, "do_sample": True, "chat_format": {"a": [1]}, "transformers_version": "4.37.0", "other": None}
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    config = GenerationConfig.from_pretrained(tmp_path)
    assert not hasattr(config, "chat_format")
    config.save_pretrained(tmp_path / "again")
    saved = json.loads((tmp_path / "again/generation_config.json").read_text())
    assert saved.pop("sparse_encoder_version")
    assert saved == {"top_k": 5, "do_sample": True, "chat_format": {"a": [1]}, "other": None}
    assert GenerationConfig.from_pretrained(tmp_path / "again") == config
    (tmp_path / "generation_config.json").write_text('{"streamer": 1}')
    with pytest.raises(ConfigError, match="field 'streamer': is no part of a generation config"):
        GenerationConfig.from_pretrained(tmp_path)


def test_another_file_and_changes(tmp_path: Path) -> None:
    GenerationConfig(num_beams=3).save_pretrained(tmp_path, "beams.json")
    config = GenerationConfig.from_pretrained(tmp_path, "beams.json", num_return_sequences=2)
    assert (config.num_beams, config.num_return_sequences) == (3, 2)
    with pytest.raises(TypeError, match="'num_beam'"):
        GenerationConfig.from_pretrained(tmp_path, "beams.json", num_beam=2)
    with pytest.raises(FieldError, match="num_return_sequences must be at most num_beams, got 4 and 3"):
        GenerationConfig.from_pretrained(tmp_path, "beams.json", num_return_sequences=4)


def test_a_file_with_idle_fields_is_saved_as_it_was_and_not_changed(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.6, "top_p": 0.9}')
    config = GenerationConfig.from_pretrained(tmp_path)
    config.save_pretrained(tmp_path / "as it was")
    config.max_new_tokens = 5
    with pytest.raises(ValueError, match="temperature is 0.6 and means nothing without do_sample=True"):
        config.save_pretrained(tmp_path / "changed")
    assert not (tmp_path / "changed").exists()
    config.do_sample = True
    config.save_pretrained(tmp_path / "changed")
    assert GenerationConfig.from_pretrained(tmp_path / "changed") == config
    config.num_return_sequences, config.do_sample = 3, None
    with pytest.raises(FieldError, match="num_return_sequences must be 1 where nothing is drawn"):
        config.save_pretrained(tmp_path / "changed")


def test_fields_that_are_not_offered_can_be_read() -> None:
    config = GenerationConfig.from_dict({"num_assistant_tokens": 7})
    assert (config.num_assistant_tokens, config.guidance_scale) == (7, None)
    assert (copy.deepcopy(config).num_assistant_tokens, pickle.loads(pickle.dumps(config)).penalty_alpha) == (7, None)
    with pytest.raises(AttributeError, match="has no field 'guidance'"):
        config.guidance  # noqa: B018


def test_a_file_of_any_name(tmp_path: Path) -> None:
    config = GenerationConfig(top_k=3, do_sample=True)
    config.to_json_file(tmp_path / "some.json")
    assert json.loads((tmp_path / "some.json").read_text()) == json.loads(config.to_json_string())
    config.to_json_file(tmp_path / "all.json", use_diff=False)
    assert GenerationConfig.from_pretrained(tmp_path, "all.json") == config


def test_biases_that_no_file_holds(tmp_path: Path) -> None:
    config = GenerationConfig(sequence_bias={(1,): float("-inf")})
    with pytest.raises(FieldError, match="sequence_bias must be finite to be saved; use bad_words_ids"):
        config.save_pretrained(tmp_path)


def test_updates_are_whole_and_give_back_what_is_no_field() -> None:
    config = GenerationConfig(num_beams=2)
    assert config.update(top_k=5, do_sample=True, labels=3, streamer=4) == {"labels": 3, "streamer": 4}
    assert config.to_diff_dict() == {"num_beams": 2, "top_k": 5, "do_sample": True}
    assert config.update(defaults_only=True, top_k=9, top_p=0.5) == {"top_k": 9}
    assert (config.top_k, config.top_p) == (5, 0.5)
    before = config.copy()
    with pytest.raises(FieldError, match="max_new_tokens"):
        config.update(min_length=3, max_new_tokens=-1)
    with pytest.raises(FieldError, match="at most num_beams"):
        config.update(num_beams=4, num_return_sequences=5)
    assert config == before
    with pytest.warns(UserWarning, match="output_scores is True and means nothing"):
        config.update(output_scores=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config.update(top_k=7)  # what was there before is not told again


def test_copies_are_their_own() -> None:
    config = GenerationConfig(bad_words_ids=[[1]], sequence_bias={(1, 2): 0.5})
    for other in (copy.copy(config), copy.deepcopy(config), config.copy(), pickle.loads(pickle.dumps(config))):
        assert other == config
        other.top_k = 3
        assert other != config
    words = config.copy()
    assert words.bad_words_ids is not None
    words.bad_words_ids.append([2])
    config.to_dict()["bad_words_ids"].append([3])
    assert config.bad_words_ids == [[1]]
    assert config != "config"
    with pytest.raises(TypeError, match="unhashable"):
        hash(config)


def test_static_cache_size_without_it() -> None:
    with pytest.warns(UserWarning, match="max_cache_len is 9 and means nothing without cache_implementation='static'"):
        GenerationConfig(max_cache_len=9)


def test_a_model_config_may_force_its_begin_token() -> None:
    values = {
        "force_bos_token_to_be_generated": True,
        "bos_token_id": 3,
        "text_config": {"max_length": 9},
        "top_k": None,
    }
    config = GenerationConfig.from_model_config(values)
    assert config.to_diff_dict() == {"bos_token_id": 3, "forced_bos_token_id": 3, "max_length": 9}
    with pytest.raises(FieldError, match="num_beams must"):
        GenerationConfig.from_model_config({"num_beams": "many"})


SIMPLE = st.fixed_dictionaries(
    {},
    optional={
        "do_sample": st.just(True),
        "max_new_tokens": st.integers(1, 1000),
        "temperature": st.floats(0.01, 10),
        "top_k": st.integers(0, 100),
        "eos_token_id": st.integers(0, 9) | st.lists(st.integers(0, 9), min_size=1, max_size=3),
        "stop_strings": st.text(min_size=1, max_size=5) | st.lists(st.text(min_size=1, max_size=5), max_size=2),
        "bad_words_ids": st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=3),
        "sequence_bias": st.dictionaries(
            st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple), st.floats(-9, 9), min_size=1, max_size=3
        ),
        "exponential_decay_length_penalty": st.tuples(st.integers(0, 9), st.floats(0.5, 2)),
    },
)


@settings(deadline=None, max_examples=60)
@given(values=SIMPLE)
def test_dicts_and_json_round_trip(values: dict[str, Anything]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        config = GenerationConfig(**values)
    assert GenerationConfig.from_dict(config.to_dict()) == config
    assert GenerationConfig.from_dict(config.to_diff_dict()) == config


def test_from_the_hub_comes_this_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_account(monkeypatch)
    with serving(FakeHub()) as hub:
        be_the_hub(hub, monkeypatch)
        files = {"generation_config.json": b'{"top_k": 3}', "sub/other.json": b'{"top_k": 4}', "config.json": b"{}"}
        hub.add("org/model", files)
        assert GenerationConfig.from_pretrained("org/model", cache_dir=tmp_path).top_k == 3
        found = GenerationConfig.from_pretrained("org/model", "other.json", cache_dir=tmp_path, subfolder="sub")
        assert found.top_k == 4
        with pytest.raises(FileNotFoundError, match="other.json"):
            GenerationConfig.from_pretrained("org/model", "other.json", cache_dir=tmp_path)
    assert {path.name for path in tmp_path.rglob("*.*") if path.is_symlink()} == {
        "generation_config.json",
        "other.json",
    }


def test_a_mode_with_an_assistant_is_refused() -> None:
    assert GenerationConfig(num_beams=2).get_generation_mode(assistant_model=None) == "beam_search"
    with pytest.raises(FieldError, match="assistant_model is not offered: .*; leave it out"):
        GenerationConfig().get_generation_mode(assistant_model=object())  # type: ignore[arg-type]
