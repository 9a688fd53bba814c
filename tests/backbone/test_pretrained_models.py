"""Folders in, folders out: what is accepted, what is refused, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, D, V, batch
from loading_helpers import BIAS, BIAS_COPY, CONFIGS, DECODER, WORDS, Change, assert_same, change, saved
from safetensors.torch import load_file
from torch import Tensor

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel
from sparse_encoder.checkpoint import CheckpointError, ConfigError


@pytest.mark.parametrize("name", CONFIGS)
def test_saved_is_loaded(name: str, tmp_path: Path) -> None:
    model = saved(tmp_path, name)
    loaded = MaskedLanguageModel.from_pretrained(tmp_path)
    assert_same(loaded, model)
    assert loaded.config == model.config
    assert not loaded.training and not any(parameter.is_meta for parameter in loaded.parameters())
    features = batch(model.config.num_token_types, pad=0)
    assert torch.equal(loaded(**features), model(**features))
    assert loaded.load_report is not None
    assert sorted((*loaded.load_report.used, *loaded.load_report.ignored)) == sorted(
        load_file(tmp_path / "model.safetensors")
    )


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_an_encoder_is_saved_without_prefix_and_loads_with_one_too(name: str, tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole", name)
    encoder = EncoderModel.from_pretrained(tmp_path / "whole")
    assert_same(encoder.backbone, whole.backbone)
    assert encoder.load_report is not None and encoder.load_report.ignored
    encoder.save_pretrained(tmp_path / "alone")
    prefix = encoder.family.base_prefix
    names = set(load_file(tmp_path / "alone/model.safetensors"))
    assert {prefix + key for key in names} == set(encoder.load_report.used)
    assert_same(EncoderModel.from_pretrained(tmp_path / "alone"), encoder)
    assert json.loads((tmp_path / "alone/config.json").read_text())["architectures"] == [encoder.architecture]


def test_shards(tmp_path: Path) -> None:
    model = MaskedLanguageModel.from_config(CONFIGS["bert"])
    model.save_pretrained(tmp_path, max_shard_size=4000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path), model)
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_the_config_keeps_its_keys(tmp_path: Path) -> None:
    given = {**CONFIGS["bert"], "id2label": {"0": "no"}, "torch_dtype": "float16", "architectures": ["BertModel"]}
    with pytest.warns(UserWarning, match="auto_map are ignored"):
        model = MaskedLanguageModel.from_config({**given, "auto_map": {"AutoModel": "x"}}, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written == {**given, "torch_dtype": "bfloat16", "architectures": ["BertForMaskedLM"]}
    assert model.hf_config["torch_dtype"] == "float16" and given["architectures"] == ["BertModel"]


def drop(*names: str) -> Change:
    return lambda tensors: [tensors.pop(name) for name in names]


def put(**new: Tensor) -> Change:
    return lambda tensors: tensors.update({name.replace("__", "."): value for name, value in new.items()})


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (drop(WORDS), rf"fit BertForMaskedLM; 1 missing tensor: {WORDS}\. strict=False starts"),
        (
            drop("bert.encoder.layer.1.output.dense.bias", "cls.predictions.transform.dense.weight"),
            r"2 missing tensors: bert\.encoder\.layer\.1\.output\.dense\.bias, cls\.predictions\.transform\.dense",
        ),
        (drop(BIAS), rf"1 missing tensor: {BIAS}"),
        (put(odd__name=torch.zeros(2)), "1 unexpected tensor: odd.name"),
        (
            put(**{f"bert__encoder__layer__7__{part}__dense__bias": torch.zeros(D) for part in ("output",)}),
            r"1 unexpected tensor: bert\.encoder\.layer\.7\.output\.dense\.bias",
        ),
        (put(bert__pooler__other=torch.zeros(2)), r"unexpected tensor: bert\.pooler\.other"),
        (
            put(bert__embeddings__position_embeddings__weight=torch.zeros(5, D)),
            r"1 tensor of another shape: bert\.embeddings\.position_embeddings\.weight is \(5, 12\), "
            r"the config says \(26, 12\)",
        ),
        (put(cls__predictions__bias=torch.zeros(V + 1)), r"cls\.predictions\.bias is \(18,\)"),
        (put(cls__predictions__bias=torch.zeros(V, dtype=torch.int64)), "not of floating point: cls.predictions.bias"),
        (put(embeddings__LayerNorm__bias=torch.zeros(D)), "are one parameter stored twice"),
        (put(cls__predictions__decoder__bias=torch.zeros(V)), "are one parameter and differ"),
        (put(cls__predictions__decoder__weight=torch.zeros(V + 1, D)), rf"{DECODER} is \(18, 12\)"),
    ],
)
def test_a_tensor_too_few_too_many_or_of_another_shape_is_named(by: Change, message: str, tmp_path: Path) -> None:
    saved(tmp_path)
    change(tmp_path, by)
    with pytest.raises(CheckpointError, match=message) as caught:
        MaskedLanguageModel.from_pretrained(tmp_path)
    assert caught.value.path == str(tmp_path)


def test_problems_are_listed_together_and_long_lists_are_cut(tmp_path: Path) -> None:
    saved(tmp_path)
    change(tmp_path, lambda tensors: [tensors.pop(key) for key in list(tensors) if "layer." in key])
    change(tmp_path, put(cls__predictions__bias=torch.zeros(3)))
    with pytest.raises(CheckpointError, match=r"48 missing tensors: .* and 28 more; 1 tensor of another shape"):
        MaskedLanguageModel.from_pretrained(tmp_path)


def test_a_checkpoint_without_a_head_is_no_masked_language_model(tmp_path: Path) -> None:
    EncoderModel.from_config(CONFIGS["bert"]).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"do not fit BertForMaskedLM; 5 missing tensors: cls\.predictions\.bias"):
        MaskedLanguageModel.from_pretrained(tmp_path)


def test_no_name_that_matches_never_gives_random_weights(tmp_path: Path) -> None:
    saved(tmp_path)

    def rename(tensors: dict[str, Tensor]) -> None:
        for key in list(tensors):
            tensors[f"model.encoder.{key}"] = tensors.pop(key)

    change(tmp_path, rename)
    with pytest.raises(CheckpointError, match="unexpected tensors"):
        MaskedLanguageModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_old_names_wrappers_buffers_and_foreign_heads_are_understood(prefix: str, tmp_path: Path) -> None:
    model = saved(tmp_path)

    def age(tensors: dict[str, Tensor]) -> None:
        tensors |= {
            "bert.embeddings.position_ids": torch.arange(26)[None],
            "bert.pooler.dense.weight": torch.zeros(D, D),
            "bert.pooler.dense.bias": torch.zeros(D),
            "cls.seq_relationship.weight": torch.zeros(2, D),
            "cls.seq_relationship.bias": torch.zeros(2),
            DECODER: tensors[WORDS].clone(),
            BIAS_COPY: tensors[BIAS].clone(),
        }
        for key in list(tensors):
            old = key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[prefix + old] = tensors.pop(key)

    change(tmp_path, age)
    loaded = MaskedLanguageModel.from_pretrained(tmp_path)
    assert_same(loaded, model)
    assert loaded.config.tie_word_embeddings and loaded.head.weight is loaded.backbone.embeddings.word.weight
    assert loaded.load_report is not None
    assert set(loaded.load_report.ignored) == {
        "bert.embeddings.position_ids",
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "cls.seq_relationship.weight",
        "cls.seq_relationship.bias",
        BIAS_COPY,
    }
    assert loaded.load_report.missing == ()


def test_a_decoder_that_differs_is_kept_as_its_own(tmp_path: Path) -> None:
    model = saved(tmp_path)
    change(tmp_path, lambda tensors: tensors.update({DECODER: tensors[WORDS] * 2}))
    loaded = MaskedLanguageModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.head.weight, model.head.weight * 2)
    assert torch.equal(loaded.backbone.embeddings.word.weight, model.head.weight)
    assert not loaded.config.tie_word_embeddings and loaded.hf_config["tie_word_embeddings"] is False
    loaded.save_pretrained(tmp_path / "again")
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path / "again"), loaded)


def test_a_tied_weight_may_be_stored_under_either_name(tmp_path: Path) -> None:
    model = saved(tmp_path, "modernbert")
    change(
        tmp_path,
        lambda tensors: tensors.update({"decoder.weight": tensors.pop("model.embeddings.tok_embeddings.weight")}),
    )
    loaded = MaskedLanguageModel.from_pretrained(tmp_path)
    assert_same(loaded, model)
    assert loaded.head.weight is loaded.backbone.embeddings.word.weight


def test_an_untied_model_needs_its_decoder_and_decides_by_its_second_bias(tmp_path: Path) -> None:
    model = saved(tmp_path, "untied bert")
    change(tmp_path, lambda tensors: tensors.update({BIAS: torch.zeros(V)}))  # never used, never trained
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path), model)
    change(tmp_path, drop(DECODER))
    with pytest.raises(CheckpointError, match=f"1 missing tensor: {DECODER}"):
        MaskedLanguageModel.from_pretrained(tmp_path)


def test_a_decoders_bias_may_be_stored_under_its_second_name_alone(tmp_path: Path) -> None:
    model = saved(tmp_path)
    change(tmp_path, lambda tensors: tensors.update({BIAS_COPY: tensors.pop(BIAS)}))
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path), model)


@pytest.mark.parametrize(
    ("asked", "in_config", "expected"),
    [
        (None, None, torch.float16),
        ("auto", None, torch.float16),
        (None, {"dtype": "bfloat16"}, torch.bfloat16),
        ("auto", {"torch_dtype": "float32"}, torch.float32),
        (None, {"dtype": "auto"}, torch.float16),
        ("float32", {"dtype": "bfloat16"}, torch.float32),
        (torch.bfloat16, None, torch.bfloat16),
        ("torch.float64", None, torch.float64),
    ],
)
def test_the_dtype_asked_for_else_the_configs_else_the_weights(
    asked: torch.dtype | str | None, in_config: dict[str, str] | None, expected: torch.dtype, tmp_path: Path
) -> None:
    saved(tmp_path)
    change(tmp_path, lambda tensors: tensors.update({key: value.half() for key, value in tensors.items()}))
    (tmp_path / "config.json").write_text(json.dumps({**CONFIGS["bert"], **(in_config or {})}))
    model = MaskedLanguageModel.from_pretrained(tmp_path, dtype=asked)
    assert {parameter.dtype for parameter in model.parameters()} == {expected}
    assert model.dtype == expected and model.device.type == "cpu"


def test_random_weights_have_the_dtype_asked_for_else_the_configs() -> None:
    assert MaskedLanguageModel.from_config(CONFIGS["bert"]).dtype == torch.float32
    assert MaskedLanguageModel.from_config({**CONFIGS["bert"], "dtype": "bfloat16"}).dtype == torch.bfloat16
    assert MaskedLanguageModel.from_config(CONFIGS["bert"], dtype="float16").dtype == torch.float16


@pytest.mark.parametrize("dtype", ["float8", torch.int8, "half precision"])
def test_an_unknown_dtype_is_refused(dtype: torch.dtype | str) -> None:
    with pytest.raises(ValueError, match=r"unknown dtype .* \['bfloat16', 'float16', 'float32', 'float64'\]"):
        MaskedLanguageModel.from_config(CONFIGS["bert"], dtype=dtype)


def test_a_folder_without_a_config_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        MaskedLanguageModel.from_pretrained(tmp_path)


def test_a_dtype_in_the_config_that_is_none_is_a_config_error(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**CONFIGS["bert"], "torch_dtype": "float7"}))
    with pytest.raises(ConfigError, match=r"config\.json, field 'torch_dtype': unknown dtype 'float7'"):
        MaskedLanguageModel.from_pretrained(tmp_path)


def test_attention_can_be_chosen(tmp_path: Path) -> None:
    model = saved(tmp_path)
    features = batch(2, pad=0)
    eager = MaskedLanguageModel.from_pretrained(tmp_path, attn_implementation="eager")
    torch.testing.assert_close(eager(**features), model(**features), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="unknown attention 'flash_attention_2'"):
        MaskedLanguageModel.from_pretrained(tmp_path, attn_implementation="flash_attention_2")
