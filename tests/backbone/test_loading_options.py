"""Arguments of from_pretrained: those that act, those that are refused with the way out, those without effect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, V, batch
from loading_helpers import DENSE, WEIGHTS, WORDS, assert_same, change, renamed, saved
from safetensors.torch import load_file, save_file

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel
from sparse_encoder.backbone.loading.load import load_pretrained
from sparse_encoder.backbone.loading.options import LoadOptions
from sparse_encoder.checkpoint import CheckpointError, ConfigError


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"from_tf": True}, "from_tf is not supported: TensorFlow.*save_pretrained"),
        ({"from_flax": True}, "from_flax is not supported: Flax.*save_pretrained"),
        ({"proxies": {"https": "x"}}, "HTTP_PROXY and HTTPS_PROXY"),
        ({"tp_plan": "auto"}, "tensor parallelism"),
        ({"quantization_config": {"bits": 4}}, "quantized weights"),
        ({"load_in_8bit": True}, "quantized weights"),
        ({"load_in_4bit": True}, "quantized weights"),
        ({"weights_only": False}, "weights_only must be True"),
        ({"dtype": "half"}, "unknown dtype 'half'"),
        ({"torch_dtype": "half"}, "unknown dtype 'half'"),
        ({"attn_implementation": "flash_attention_2"}, "unknown attention"),
        ({"variant": "../x"}, "variant must be"),
        ({"key_mapping": {"(": "x"}}, "key_mapping must map regular expressions"),
        ({"max_memory": {0: "1GB"}}, "max_memory need a device_map"),
        ({"offload_folder": "x", "offload_buffers": True}, "offload_folder and offload_buffers need a device_map"),
        ({"state_dict": {}}, "state_dict takes the place of files"),
        ({"num_labels": 0}, "num_labels must be a whole number from 1"),
    ],
)
def test_what_is_not_supported_is_refused(option: dict[str, Any], message: str, tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(ValueError, match=message):
        MaskedLanguageModel.from_pretrained(tmp_path, **option)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"strict": 1}, "strict must be one of"),
        ({"use_safetensors": "no"}, "use_safetensors must be one of"),
        ({"ignore_mismatched_sizes": None}, "ignore_mismatched_sizes must be one of"),
        ({"hiden_size": 12}, "hiden_size"),
        ({"config": 3}, "config must be the content of a config.json"),
        ({"config": TINY_CONFIGS["bert"], "hidden_dropout_prob": 0.0}, "hidden_dropout_prob"),
    ],
)
def test_wrong_types_and_unknown_arguments(option: dict[str, Any], message: str, tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(TypeError, match=message):
        MaskedLanguageModel.from_pretrained(tmp_path, **option)
    with pytest.raises(TypeError):
        MaskedLanguageModel.from_pretrained(tmp_path, "a positional argument")


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ({"key_mapping": ["a"]}, TypeError, r"key_mapping must be a mapping of patterns to replacements, got \['a'\]"),
        ({"state_dict": [1]}, TypeError, r"state_dict must be a mapping of names to tensors, got \[1\]"),
        ({"variant": 3}, TypeError, "variant must be a text, as 'fp16', got 3"),
        ({"subfolder": 3}, TypeError, "subfolder must be the path of a folder, got 3"),
        ({"revision": 3}, TypeError, "revision must be a branch, a tag or a commit, got 3"),
        ({"force_download": "yes"}, TypeError, "force_download must be True or False, got 'yes'"),
        ({"local_files_only": "no"}, TypeError, "local_files_only must be True or False, got 'no'"),
        ({"model_args": ("a",)}, TypeError, "given by their place behind the name, not as model_args"),
        ({"config": "organisation/model"}, FileNotFoundError, "config must be a file or folder on this machine"),
        ({"state_dict": {}, "variant": "fp16"}, ValueError, "variant choose files, and state_dict takes their place"),
        (
            {"state_dict": {}, "use_safetensors": True, "subfolder": "x"},
            ValueError,
            "use_safetensors and subfolder choose",
        ),
    ],
)
def test_arguments_that_would_be_ignored_or_break_later(
    option: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    saved(tmp_path)
    with pytest.raises(error, match=message):
        MaskedLanguageModel.from_pretrained(tmp_path, **option)


def test_false_and_none_ask_for_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = saved(tmp_path)
    asked: dict[str, Any] = dict.fromkeys(("from_tf", "from_flax", "load_in_8bit", "low_cpu_mem_usage"), False)
    nothing = dict.fromkeys(("proxies", "quantization_config", "cache_dir", "token", "dtype", "device_map"))
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path, **asked, **nothing, attn_implementation=None), model)
    assert not caplog.records
    options = {"resume_download": True, "low_cpu_mem_usage": True, "trust_remote_code": True}
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path, **options), model)
    assert [record.getMessage() for record in caplog.records] == [
        "['resume_download', 'low_cpu_mem_usage', 'trust_remote_code'] have no effect here and can be left out"
    ]


def test_dtype_wins_over_its_alias(tmp_path: Path) -> None:
    saved(tmp_path)
    load = MaskedLanguageModel.from_pretrained
    assert load(tmp_path, torch_dtype="float16").dtype == torch.float16
    assert load(tmp_path, torch_dtype="float16", dtype=torch.bfloat16).dtype == torch.bfloat16


def test_the_config_then_the_index_then_the_first_floating_weight_name_the_dtype(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = MaskedLanguageModel.from_config(TINY_CONFIGS["bert"], dtype="bfloat16")
    model.save_pretrained(tmp_path, max_shard_size=4000)
    config, index = tmp_path / "config.json", tmp_path / "model.safetensors.index.json"
    assert MaskedLanguageModel.from_pretrained(tmp_path).dtype == torch.bfloat16  # by the config
    assert caplog.messages == ["bfloat16 weights on the CPU may be slow; dtype='float32' makes them 32-bit"]
    config.write_text(json.dumps(TINY_CONFIGS["bert"]))
    assert MaskedLanguageModel.from_pretrained(tmp_path).dtype == torch.bfloat16  # by the weights
    content = json.loads(index.read_text())
    index.write_text(json.dumps({**content, "metadata": {"dtype": "float32"}}))
    caplog.clear()
    assert MaskedLanguageModel.from_pretrained(tmp_path).dtype == torch.float32
    assert (
        MaskedLanguageModel.from_pretrained(tmp_path, dtype="float16").dtype == torch.float16
    )  # asked for: no warning
    assert not caplog.messages
    index.write_text(json.dumps({**content, "metadata": {"dtype": "int4"}}))
    with pytest.raises(ConfigError, match="unknown dtype 'int4'"):
        MaskedLanguageModel.from_pretrained(tmp_path)


def test_formats_to_store_in_are_no_dtypes_of_models(tmp_path: Path) -> None:
    saved(tmp_path, torch_dtype="float8_e4m3fn")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "torch_dtype": "float8_e4m3fn"}))
    change(tmp_path, lambda tensors: tensors.update({name: each.double() for name, each in tensors.items()}))
    assert MaskedLanguageModel.from_pretrained(tmp_path).dtype == torch.float64  # by the weights
    (tmp_path / "config.json").write_text(json.dumps({**config, "torch_dtype": "float8"}))
    with pytest.raises(ConfigError, match="unknown dtype 'float8'"):
        MaskedLanguageModel.from_pretrained(tmp_path)


def test_an_integer_tensor_in_front_does_not_decide(tmp_path: Path) -> None:
    saved(tmp_path)
    by = {"bert.embeddings.position_ids": torch.arange(26)[None]}
    change(tmp_path, lambda tensors: tensors.update({name: each.double() for name, each in tensors.items()} | by))
    (tmp_path / "config.json").write_text(json.dumps(TINY_CONFIGS["bert"]))
    assert MaskedLanguageModel.from_pretrained(tmp_path).dtype == torch.float64


def test_keys_of_the_config_replace_its_values(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    given = json.loads((tmp_path / "model/config.json").read_text())
    model = MaskedLanguageModel.from_pretrained(tmp_path / "model", hidden_dropout_prob=0.25, num_labels=2)
    assert model.config.embedding_dropout == 0.25
    assert model.hf_config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"}
    assert model.hf_config["hidden_dropout_prob"] == 0.25
    with pytest.raises(CheckpointError, match="of another shape"):
        MaskedLanguageModel.from_pretrained(tmp_path / "model", vocab_size=V + 1)
    with pytest.raises(ConfigError, match="hidden_dropout_prob"):
        MaskedLanguageModel.from_pretrained(tmp_path / "model", hidden_dropout_prob=2.0)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text(json.dumps({**given, "hidden_dropout_prob": 0.5}))
    for path in (tmp_path / "other", str(tmp_path / "other/config.json")):
        loaded = MaskedLanguageModel.from_pretrained(tmp_path / "model", config=path)
        assert loaded.config.embedding_dropout == 0.5


def test_keys_that_nobody_reads_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "output_attentions": False}))
    with pytest.raises(ValueError, match="output_attentions has no effect on models of this library"):
        MaskedLanguageModel.from_pretrained(tmp_path, output_attentions=True)
    with pytest.raises(
        ValueError, match="a configuration of 'bert' has no key 'hiden_size'; did you mean 'hidden_size'"
    ):
        load_pretrained(EncoderModel, tmp_path, LoadOptions(others={"hiden_size": 12}, any_config_value=True))
    options = LoadOptions(others={"position_embedding_type": "absolute"}, any_config_value=True)
    model = load_pretrained(EncoderModel, tmp_path, options).model
    assert model.hf_config["position_embedding_type"] == "absolute"


def test_a_given_config_is_copied(tmp_path: Path) -> None:
    saved(tmp_path)
    given = {**TINY_CONFIGS["bert"], "id2label": {"0": "a"}}
    model = MaskedLanguageModel.from_pretrained(tmp_path, config=given)
    model.hf_config["id2label"]["0"] = "b"
    assert given["id2label"] == {"0": "a"}


def test_tensors_in_place_of_files(tmp_path: Path) -> None:
    model = saved(tmp_path)
    theirs = load_file(tmp_path / WEIGHTS)
    for given in (theirs, dict(model.state_dict())):
        loaded = MaskedLanguageModel.from_pretrained(None, config=model.hf_config, state_dict=given)
        assert_same(loaded, model)
        with torch.no_grad():
            for parameter in loaded.parameters():
                parameter.zero_()
    assert theirs[WORDS].any()  # what is loaded is a copy
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path), model)
    with pytest.raises(ValueError, match="needs both config and state_dict"):
        MaskedLanguageModel.from_pretrained(None, config=model.hf_config)
    with pytest.raises(CheckpointError, match=f"1 missing tensor: {DENSE}"):
        few = {name: each for name, each in theirs.items() if name != DENSE}
        MaskedLanguageModel.from_pretrained(None, config=model.hf_config, state_dict=few)
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        wrong = {**theirs, DENSE: torch.full((12,), float("nan"))}
        MaskedLanguageModel.from_pretrained(None, config=model.hf_config, state_dict=wrong)
    with pytest.raises(TypeError, match="must map names to tensors"):
        MaskedLanguageModel.from_pretrained(None, config=model.hf_config, state_dict={"a": 1})


def test_names_are_mapped_before_they_are_matched(tmp_path: Path) -> None:
    model = saved(tmp_path)
    change(tmp_path, renamed("bert.encoder.layer", "trunk.blocks"))
    with pytest.raises(CheckpointError, match="missing"):
        MaskedLanguageModel.from_pretrained(tmp_path)
    mapping = {r"^trunk\.blocks\.(\d+)": r"bert.encoder.layer.\1", "LayerNorm": "LayerNorm"}
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path, key_mapping=mapping), model)
    prefixless = {r"^trunk\.blocks": "encoder.layer"}  # the base prefix is put on behind it
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path, key_mapping=prefixless), model)
    with pytest.raises(CheckpointError, match="two tensors are called"):
        MaskedLanguageModel.from_pretrained(tmp_path, key_mapping={".+": "x"})


def test_prefixes_are_whole_parts_of_names(tmp_path: Path) -> None:
    saved(tmp_path)
    change(tmp_path, lambda tensors: tensors.update({"bert.bert_x": torch.zeros(2), "bertembeddings.y": torch.ones(1)}))
    with pytest.raises(CheckpointError, match=r"2 unexpected tensors: bert\.bert_x, bertembeddings\.y"):
        EncoderModel.from_pretrained(tmp_path)


def test_a_variant_is_read_and_nothing_else(tmp_path: Path) -> None:
    plain = saved(tmp_path)
    half = {name: each * 2 for name, each in load_file(tmp_path / WEIGHTS).items()}
    with pytest.raises(
        CheckpointError, match=r"model\.fp16\.safetensors.*Leave out variant='fp16'.*model\.safetensors"
    ):
        MaskedLanguageModel.from_pretrained(tmp_path, variant="fp16")
    save_file(half, tmp_path / "model.fp16.safetensors", {"format": "pt"})
    loaded = MaskedLanguageModel.from_pretrained(tmp_path, variant="fp16")
    assert torch.equal(loaded.head.bias, plain.head.bias * 2)
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path), plain)
    (tmp_path / "model.fp16.safetensors").unlink()
    loaded.save_pretrained(tmp_path, variant="fp16", max_shard_size=4000)
    assert (tmp_path / "model.safetensors.index.fp16.json").exists()
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path, variant="fp16"), loaded)


def test_a_subfolder_of_a_folder(tmp_path: Path) -> None:
    model = saved(tmp_path / "0_Transformer")
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path, subfolder="0_Transformer"), model)
    with pytest.raises(FileNotFoundError, match="has no folder '1_None'"):
        MaskedLanguageModel.from_pretrained(tmp_path, subfolder="1_None")
    for outside in ("../x", "/etc", "a\\..\\b"):
        with pytest.raises(ConfigError, match="must be relative"):
            MaskedLanguageModel.from_pretrained(tmp_path, subfolder=outside)


def test_a_subfolder_may_be_a_path(tmp_path: Path) -> None:
    model = saved(tmp_path / "a" / "b")
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path, subfolder=Path("a") / "b"), model)


def test_pickles_are_read_with_a_warning_or_refused(tmp_path: Path) -> None:
    model = saved(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    tensors["cls.predictions.decoder.weight"] = tensors[WORDS]
    (tmp_path / WEIGHTS).unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.warns(UserWarning, match="sparse-encoder convert"):
        loaded = MaskedLanguageModel.from_pretrained(tmp_path)
    assert_same(loaded, model)
    with pytest.raises(CheckpointError, match="has no weights; looked for .'model.safetensors'"):
        MaskedLanguageModel.from_pretrained(tmp_path, use_safetensors=True)
    with pytest.warns(UserWarning, match="pickle"):
        untied = MaskedLanguageModel.from_pretrained(tmp_path, use_safetensors=False, tie_word_embeddings=False)
    with torch.no_grad():
        untied.head.weight.zero_()  # in the pickle it shares memory with the embeddings
    assert torch.equal(untied.backbone.embeddings.word.weight, model.head.weight)
    (tmp_path / "pytorch_model.bin").unlink()
    (tmp_path / "tf_model.h5").touch()
    with pytest.raises(CheckpointError, match="they are of TensorFlow"):
        MaskedLanguageModel.from_pretrained(tmp_path)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(NotADirectoryError, match="give the folder that holds the model"):
        MaskedLanguageModel.from_pretrained(tmp_path / WEIGHTS)
    with pytest.raises(TypeError, match="must be a text or a path"):
        MaskedLanguageModel.from_pretrained(3)  # type: ignore[call-overload]


def test_outputs_do_not_depend_on_the_way(tmp_path: Path) -> None:
    model = saved(tmp_path)
    features = batch(pad=0)
    eager = MaskedLanguageModel.from_pretrained(tmp_path, attn_implementation="eager")
    torch.testing.assert_close(eager(**features), model(**features), rtol=0, atol=1e-5)
