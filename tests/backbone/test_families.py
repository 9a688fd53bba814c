"""What is read out of a config.json, and what is refused in it."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from backbone_helpers import TINY_CONFIGS, VARIANTS

from sparse_encoder.backbone import FAMILIES, MaskedLanguageModel, architecture_is_masked_language
from sparse_encoder.backbone.families import family_of, read_config
from sparse_encoder.backbone.weights import names_of
from sparse_encoder.checkpoint import CheckpointError, ConfigError

BERT, MODERNBERT = TINY_CONFIGS["bert"], TINY_CONFIGS["modernbert"]


def test_the_families_are_these() -> None:
    assert sorted(FAMILIES) == [
        "albert",
        "bert",
        "camembert",
        "deberta-v2",
        "distilbert",
        "electra",
        "gte",
        "modernbert",
        "mpnet",
        "new",
        "nomic_bert",
        "roberta",
        "xlm-roberta",
    ]
    assert all(FAMILIES[name].model_type == name for name in FAMILIES)


@pytest.mark.parametrize("name", {**TINY_CONFIGS, **VARIANTS})
def test_every_parameter_has_a_name_in_the_family_and_back(name: str) -> None:
    model = MaskedLanguageModel.from_config({**TINY_CONFIGS, **VARIANTS}[name])
    table = names_of(model.family, model.config, model.head_rows(model.family)).own
    theirs = [table.theirs(ours) for ours in model.state_dict()]
    assert len(set(theirs)) == len(theirs)
    assert [table.ours(key) for key in theirs] == list(model.state_dict())


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_decoders_second_name_is_not_in_the_table(model_type: str) -> None:
    family = FAMILIES[model_type]
    copy = family.decoder_bias_copy
    assert copy is None or names_of(family, family.defaults, family.head_rows).own.ours(copy) is None


@pytest.mark.parametrize("model_type", ["", "t6", "BERT", None])
def test_an_unknown_model_type_is_refused_with_those_we_know(model_type: str | None) -> None:
    with pytest.raises(ConfigError, match=r"'albert', 'bart', 'bert', .* 'xlm-roberta'|must be a string") as caught:
        read_config({**BERT, "model_type": model_type}, Path("here/config.json"))
    assert (caught.value.path, caught.value.field) == ("here/config.json", "model_type")


def test_no_model_type_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown model type ''"):
        read_config({"vocab_size": 17})


@pytest.mark.parametrize("names", [["JinaBertForMaskedLM"], ["BertModel", "T5Model"], ["BertLike"]])
def test_a_foreign_architecture_is_refused_with_those_we_know(names: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"choose from \['BertForMaskedLM', 'BertForPreTraining', 'BertModel'\]"):
        family_of({**BERT, "architectures": names})


@pytest.mark.parametrize("value", ["BertModel", [1], {"a": 1}])
def test_architectures_are_a_list_of_strings(value: Any) -> None:  # noqa: ANN401
    with pytest.raises(ConfigError, match="must be a list of strings"):
        family_of({**BERT, "architectures": value})


@pytest.mark.parametrize(
    ("model_type", "names", "expected"),
    [
        ("bert", ["BertForMaskedLM"], True),
        ("bert", ["BertForPreTraining"], True),
        ("bert", ["BertModel"], False),
        ("bert", ["BertForSequenceClassification"], False),
        ("bert", None, False),
        ("xlm-roberta", ["XLMRobertaForMaskedLM"], True),
        ("albert", ["AlbertForPreTraining"], True),
        ("electra", ["ElectraForPreTraining"], False),
    ],
)
def test_architectures_promise_a_head(model_type: str, names: list[str] | None, expected: bool) -> None:
    assert architecture_is_masked_language({"model_type": model_type, "architectures": names}) is expected


@pytest.mark.parametrize(
    ("model_type", "key", "value", "message"),
    [
        ("bert", "hidden_size", "32", "must be an integer, got '32'"),
        ("bert", "hidden_size", True, "must be an integer, got True"),
        ("bert", "hidden_size", [32], "must be an integer"),
        ("bert", "hidden_size", 32.0, "must be an integer"),
        ("bert", "hidden_size", None, "must be an integer"),
        ("bert", "num_hidden_layers", -1, "between 1 and 256, got -1"),
        ("bert", "num_hidden_layers", 10**6, "between 1 and 256"),
        ("bert", "max_position_embeddings", 10**10, "got 10000000000"),
        ("bert", "num_attention_heads", 5, "must divide the hidden size 12, got 5"),
        ("bert", "hidden_act", "gelu_nice", "must be one of"),
        ("bert", "hidden_act", 3, "must be a string, got 3"),
        ("bert", "layer_norm_eps", 0, "greater than 0"),
        ("bert", "layer_norm_eps", float("nan"), "must be finite"),
        ("bert", "hidden_dropout_prob", 2.0, "below 1, got 2.0"),
        ("bert", "hidden_dropout_prob", False, "must be a number, got False"),
        ("bert", "tie_word_embeddings", "yes", "must be true or false"),
        ("bert", "pad_token_id", 17, "between 0 and 16, got 17"),
        ("bert", "is_decoder", True, "only encoders"),
        ("bert", "position_embedding_type", "relative_key", "relative positions are not supported"),
        ("roberta", "pad_token_id", None, "must be given"),
        ("roberta", "max_position_embeddings", 2, "greater than pad_token_id"),
        ("distilbert", "n_layers", 0, "between 1 and 256"),
        ("distilbert", "dim", 13, "must divide the hidden size 13"),
        ("albert", "inner_group_num", 2, "groups of several layers are not supported"),
        ("albert", "num_hidden_groups", 0, "between 1 and 256"),
        ("electra", "embedding_size", -8, "between 1 and"),
        ("modernbert", "layer_types", ["full_attention"], "must have 5 entries, got 1"),
        ("modernbert", "layer_types", ["full_attention"] * 4 + ["linear_attention"], "unknown layer types"),
        ("modernbert", "rope_parameters", [1], "must be an object"),
        ("modernbert", "rope_scaling", {"type": "yarn"}, "scaled rotary positions are not supported"),
        ("modernbert", "local_attention", 0, "between 1 and"),
        ("modernbert", "global_rope_theta", "big", "must be a number"),
    ],
)
def test_a_bad_value_is_refused_by_file_and_key(model_type: str, key: str, value: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(ConfigError, match=message) as caught:
        read_config({**TINY_CONFIGS[model_type], key: value}, Path("here/config.json"))
    assert caught.value.path == "here/config.json"
    # a head count that does not divide the width is said of the heads
    assert caught.value.field in {key, "n_heads" if key == "dim" else key, "type" if key == "rope_scaling" else key}


@pytest.mark.parametrize(
    "text", ['{"layer_norm_eps": NaN}', '{"a": 1e999}', '{"a": 1, "a": 2}', "[" * 500, "\ufeff{}", "[]"]
)
def test_a_config_that_is_no_strict_json_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.json"):
        MaskedLanguageModel.from_pretrained(tmp_path)


def test_integers_count_as_real_numbers() -> None:
    config = read_config({**BERT, "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0})
    assert (config.embedding_dropout, config.attention_dropout, config.feed_forward_output_dropout) == (0.0, 0.0, 0.0)


def test_keys_that_would_load_code_are_named_once_and_not_followed() -> None:
    dangerous = {
        "auto_map": {"AutoModel": "evil.Model"},
        "trust_remote_code": True,
        "_attn_implementation": "evil/kernel",
        "quantization_config": {"quant_method": "evil"},
    }
    before = set(sys.modules)
    with pytest.warns(UserWarning, match="_attn_implementation, auto_map, quantization_config, trust_remote_code are"):
        config = read_config({**BERT, **dangerous})
    assert config == read_config(BERT)
    assert set(sys.modules) == before


def test_harmless_configs_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        harmless = {"_attn_implementation_autoset": False, "auto_map": None, "transformers_version": "4.0"}
        assert read_config({**BERT, **harmless}) == read_config(BERT)


def test_distilbert_keys_and_dropouts() -> None:
    config = read_config(
        {"model_type": "distilbert", "dim": 12, "n_heads": 3, "dropout": 0.2, "attention_dropout": 0.3}
    )
    assert (config.hidden_size, config.num_heads, config.num_layers, config.num_token_types) == (12, 3, 6, 0)
    assert (config.embedding_dropout, config.feed_forward_output_dropout) == (0.2, 0.2)
    assert (config.attention_dropout, config.attention_output_dropout, config.feed_forward_dropout) == (0.3, 0.0, 0.0)


def test_roberta_counts_positions_behind_the_padding() -> None:
    config = read_config({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1})
    assert (config.max_tokens, config.position_offset) == (512, 2)


def test_albert_spreads_its_groups_over_the_depth() -> None:
    config = read_config({"model_type": "albert", "num_hidden_layers": 5, "num_hidden_groups": 2})
    assert (config.num_layers, config.steps) == (2, (0, 0, 0, 1, 1))


def test_both_spellings_of_modernbert_say_the_same() -> None:
    old = {"global_rope_theta": 500.0, "local_rope_theta": 70.0, "global_attn_every_n_layers": 2}
    new = {
        "layer_types": ["full_attention", "sliding_attention"] * 2 + ["full_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 500.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 70.0},
        },
    }
    config = read_config({**MODERNBERT, **old})
    assert config == read_config({**MODERNBERT, **new})
    assert config == read_config({**MODERNBERT, **new, "global_rope_theta": 9.0, "global_attn_every_n_layers": 3})
    assert config.layer_types == ("global", "local", "global", "local", "global")
    assert (config.rotary_theta, config.local_rotary_theta, config.local_window) == (500.0, 70.0, 2)


def test_modernbert_without_a_local_theta_turns_all_layers_alike() -> None:
    config = read_config({**MODERNBERT, "global_rope_theta": 500.0, "local_rope_theta": None})
    assert config.local_rotary_theta == 500.0
    assert read_config(MODERNBERT).local_rotary_theta == 10_000.0
    assert read_config({**MODERNBERT, "initializer_cutoff_factor": None}).initializer_cutoff == 3.0


def test_a_refused_config_reads_no_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**BERT, "hidden_size": 10**9}))
    (tmp_path / "model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(ConfigError, match="hidden_size"):
        MaskedLanguageModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    with pytest.raises(CheckpointError):
        MaskedLanguageModel.from_pretrained(tmp_path)
