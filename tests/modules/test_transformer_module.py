from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from modules_helpers import CONFIG, D, V, transformer
from text_helpers import CLS, DENSE, ROW, SEP, SPARSE, A, bert_backend, bert_tokenizer
from tokenizers import normalizers

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel
from sparse_encoder.checkpoint import CheckpointError, ConfigError, read_json
from sparse_encoder.modules import LoadSettings, MLMTransformer, Transformer
from sparse_encoder.tokenizer import Tokenizer
from sparse_encoder.tokenizer_options import CONFIG_FILES

CONFIG_FILE = "sentence_bert_config.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    transformer().save(tmp_path / "model")
    return tmp_path / "model"


def write(folder: Path, **values: object) -> None:
    (folder / CONFIG_FILE).write_text(json.dumps(values))


def test_masked_language_models_give_a_projection_with_the_models_logits() -> None:
    module = transformer()
    features = module.preprocess(["sparse rows", "a"])
    result = module(features)
    torch.testing.assert_close(result["token_embeddings"], module.model(**features))
    hidden, weight, bias = result["vocabulary_projection"]
    assert (hidden.shape, weight.shape, bias.shape) == ((2, 5, D), (V, D), (V,))
    assert "vocabulary_projection" not in features
    assert module.get_embedding_dimension() == V


def test_encoders_give_token_embeddings() -> None:
    module = transformer("feature-extraction")
    features = module.preprocess(["sparse rows", "a"])
    assert torch.equal(module(features)["token_embeddings"], module.model(**features))
    assert module.get_embedding_dimension() == D


def test_preprocessing_pads_to_the_longest() -> None:
    features = transformer().preprocess(["sparse a", "dense"])
    assert features["input_ids"].tolist() == [[CLS, SPARSE, A, SEP], [CLS, DENSE, SEP, 0]]
    assert features["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert features["token_type_ids"].tolist() == [[0] * 4] * 2


def test_pairs_and_prompts() -> None:
    module = transformer()
    features = module.preprocess([("a", "dense"), ["row", "a"]], prompt="sparse ")
    assert features["input_ids"].tolist() == [[CLS, SPARSE, A, SEP, DENSE, SEP], [CLS, SPARSE, ROW, SEP, A, SEP]]
    assert features["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1]] * 2
    assert features["prompt_length"].tolist() == [2, 2]  # [CLS] and the prompt
    with pytest.raises(TypeError, match=r"inputs\[1\] must be a pair"):
        module.preprocess([("a", "b"), "c"])
    with pytest.raises(TypeError, match=r"inputs\[0\] must be a pair"):
        module.preprocess([("a", "b", "c")])
    assert "prompt_length" not in module.preprocess(["a"], prompt="")


def test_ragged_tokens_are_those_of_preprocessing() -> None:
    module = transformer()
    tokens = module.tokenize_batch(["sparse a", "dense"], prompt="a ", task="query")
    assert tokens.input_ids == [[CLS, A, SPARSE, A, SEP], [CLS, A, DENSE, SEP]]
    padded = tokens.pad([1], length=16)
    assert padded["input_ids"].shape == (1, 16)
    assert padded["prompt_length"].tolist() == [2]


def test_lengths_by_call_task_and_model() -> None:
    module = transformer(query_length=4, document_length=5)
    text = "a b a b a b a b a b a b a b a b a b a b a b a b a b"
    assert module.max_seq_length == CONFIG["max_position_embeddings"]
    module.max_seq_length = 8

    def length(task: str | None = None, max_length: int | None = None) -> int:
        return int(module.preprocess([text], task=task, max_length=max_length)["input_ids"].shape[1])

    assert length() == 8
    assert length(task="query") == 4
    assert length(task="document") == 5
    assert length(task="other") == 8
    assert length(task="query", max_length=6) == 6
    assert length(max_length=1000) == 8
    assert module.tokenize_batch([text], task="query").lengths == [4]
    module.max_seq_length = None
    assert module.max_seq_length == CONFIG["max_position_embeddings"]
    for wrong in (0, 25, 2.0):
        with pytest.raises((ValueError, TypeError), match="max_seq_length"):
            module.max_seq_length = wrong  # type: ignore[assignment]


def test_processing_options_hold_for_every_call(folder: Path) -> None:
    module = Transformer(folder, transformer_task="fill-mask", processing_kwargs={"text": {"max_length": 3}})
    assert module.preprocess(["a b a b"], max_length=4)["input_ids"].shape == (1, 3)
    assert module.longest_text() == module.longest_text("query", 4) == 3
    assert module.tokenize_batch(["a b a b"], max_length=4).lengths == [4]  # what one call asks for goes before
    bare = Transformer(folder, processing_kwargs={"common": {"add_special_tokens": False, "padding": True}})
    assert bare.preprocess(["a"])["input_ids"].tolist() == [[A]]
    for wrong in ({"audio": {}}, {"text": {"padding": "max_length"}}, {"text": {"stride": 1}}):
        with pytest.raises(ValueError, match="processing_kwargs"):
            Transformer(folder, processing_kwargs=wrong)
    with pytest.raises(TypeError, match=r"processing_kwargs\['text'\] must be a mapping"):
        Transformer(folder, processing_kwargs={"text": 3})  # type: ignore[dict-item]


def test_what_is_written_is_read(folder: Path) -> None:
    module = transformer(query_length=4, processing_kwargs={"text": {"max_length": 9}})
    module.save(folder)
    assert read_json(folder / CONFIG_FILE) == {
        "transformer_task": "fill-mask",
        "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
        "module_output_name": "token_embeddings",
        "processing_kwargs": {"text": {"max_length": 9}},
        "query_length": 4,
    }
    loaded = Transformer.load(folder)
    assert loaded.get_config_dict() == module.get_config_dict()
    assert isinstance(loaded.model, MaskedLanguageModel)
    features = module.preprocess(["sparse rows"])
    torch.testing.assert_close(loaded(features)["token_embeddings"], module(features)["token_embeddings"])


def test_tasks_of_old_and_new_names(folder: Path) -> None:
    (folder / CONFIG_FILE).unlink()
    assert Transformer(folder).transformer_task == "feature-extraction"
    assert Transformer.load(folder).transformer_task == "feature-extraction"
    assert isinstance(Transformer(folder).model, EncoderModel)
    assert MLMTransformer(folder).transformer_task == "fill-mask"
    assert MLMTransformer.load(folder).transformer_task == "fill-mask"
    with pytest.raises(ValueError, match="'feature-extraction', 'fill-mask'"):
        Transformer(folder, transformer_task="sequence-classification")


@pytest.mark.parametrize("name", CONFIG_FILES)
def test_configurations_of_older_names(folder: Path, name: str) -> None:
    (folder / CONFIG_FILE).unlink()
    (folder / name).write_text('{"max_seq_length": 7, "do_lower_case": false}')
    module = MLMTransformer.load(folder)
    assert module.max_seq_length == 7
    module.save(folder)
    assert read_json(folder / "tokenizer_config.json")["model_max_length"] == 7


def test_older_keys_and_what_files_may_not_say(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(
        folder,
        transformer_task="fill-mask",
        model_args={"torch_dtype": "bfloat16", "trust_remote_code": True, "attn_implementation": "flash_attention_2"},
        tokenizer_args={"model_max_length": 6, "trust_remote_code": True},
        config_args={"auto_map": {}},
        unpad_inputs=True,
    )
    module = Transformer.load(folder)
    assert module.model.dtype == torch.bfloat16
    assert module.max_seq_length == 6
    assert module.get_config_dict()["unpad_inputs"] is True
    assert "['attn_implementation', 'trust_remote_code'] in model_kwargs" in caplog.text
    assert "['auto_map'] in config_kwargs" in caplog.text


def test_the_caller_wins_over_the_files(folder: Path) -> None:
    write(folder, model_kwargs={"dtype": "bfloat16"}, processor_kwargs={"model_max_length": 6})
    settings = LoadSettings(model_kwargs={"dtype": "float64"}, processor_kwargs={"padding_side": "left"})
    module = Transformer.load(folder, settings)
    assert module.model.dtype == torch.float64
    assert module.max_seq_length == 6
    assert module.preprocess(["a", "a b"])["attention_mask"].tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]


@pytest.mark.parametrize("in_file", ["dtype", "torch_dtype"])
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"dtype": "float64"}, torch.float64),
        ({"torch_dtype": "float64"}, torch.float64),
        ({"dtype": None, "torch_dtype": torch.float64}, torch.float64),
        ({"dtype": None}, torch.bfloat16),
        ({}, torch.bfloat16),
    ],
)
def test_a_dtype_is_heard_under_either_name(
    folder: Path, in_file: str, asked: dict[str, Any], expected: torch.dtype
) -> None:
    write(folder, model_kwargs={in_file: "bfloat16"})
    assert Transformer.load(folder, LoadSettings(model_kwargs=asked)).model.dtype == expected


@pytest.mark.parametrize(
    "values",
    [
        {"transformer_task": "any-to-any"},
        {"query_expansion": {"strategy": "fixed"}},
        {"max_seq_length": "512"},
        {"max_seq_length": 0},
        {"do_lower_case": 1},
        {"document_length": -1},
        {"model_kwargs": ["float16"]},
        {"processing_kwargs": {"image": {}}},
        {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}},
        {"modality_config": {"text": {}, "image": {}}},
        {"module_output_name": "scores"},
        {"backend": "onnx"},
    ],
)
def test_a_bad_configuration_is_refused(folder: Path, values: dict[str, object]) -> None:
    write(folder, **{"transformer_task": "fill-mask", **values})
    with pytest.raises(ConfigError, match=CONFIG_FILE):
        Transformer.load(folder)


@pytest.mark.parametrize(
    "options",
    [
        {"model_kwargs": {"device_map": "disk", "offload_folder": "x"}},
        {"model_kwargs": {"hidden_size": 12}},
        {"model_kwargs": {"dtype": "int8"}},
        {"model_kwargs": {"attn_implementation": "flash"}},
        {"processor_kwargs": {"padding": True}},
        {"processor_kwargs": {"padding_side": "top"}},
        {"processor_kwargs": {"pad_token": "[NONE]"}},
        {"config_kwargs": {"num_hidden_layers": 1}},
        {"config_kwargs": {"revision": "main"}},
        {"backend": "onnx"},
        {"query_length": 0},
        {"max_seq_length": -3},
    ],
)
def test_bad_options_are_refused(folder: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Transformer(folder, **options)


def test_remote_code_is_ignored_with_one_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    yes, no = {"trust_remote_code": True}, {"trust_remote_code": False}
    Transformer(folder, model_kwargs=no, processor_kwargs=no, config_kwargs=no)
    assert "trust_remote_code" not in caplog.text
    module = Transformer(folder, model_kwargs=yes, processor_kwargs=yes, config_kwargs=yes)
    assert caplog.text.count("trust_remote_code is ignored: code that comes with a model is never run") == 1
    assert "trust_remote_code" not in module.config


def test_values_of_the_backbones_configuration_can_be_replaced(folder: Path) -> None:
    state = torch.get_rng_state()
    module = Transformer(folder, transformer_task="fill-mask", config_kwargs={"hidden_dropout_prob": 0.0})
    assert torch.equal(torch.get_rng_state(), state)
    assert module.config["hidden_dropout_prob"] == 0.0
    plain = Transformer(folder, transformer_task="fill-mask")
    assert plain.config["hidden_dropout_prob"] == 0.1
    features = module.preprocess(["sparse rows"])
    for ours, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert module.model.head.weight is module.model.backbone.embeddings.word.weight
    assert torch.equal(module(features)["token_embeddings"], plain(features)["token_embeddings"])


def test_lower_casing_is_added_once_and_saved(tmp_path: Path) -> None:
    backend = bert_backend()
    backend.normalizer = normalizers.NFC()
    tokenizer = Tokenizer(backend, bert_tokenizer().config)
    Transformer.from_parts(transformer().model, tokenizer).save(tmp_path / "cased")
    assert Transformer(tmp_path / "cased").preprocess(["A"])["input_ids"][0, 1] != A
    lower = Transformer(tmp_path / "cased", do_lower_case=True)
    assert lower.preprocess(["A"])["input_ids"][0, 1] == A
    lower.save(tmp_path / "lower")
    again = Transformer(tmp_path / "lower", do_lower_case=True)
    assert again.preprocess(["SPARSE"])["input_ids"][0, 1] == SPARSE
    assert again.tokenizer.fingerprint == lower.tokenizer.fingerprint


def test_the_tokenizer_may_be_elsewhere_and_must_fit(folder: Path, tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnop"]
    other = Tokenizer(bert_backend(words), bert_tokenizer().config)
    other.save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="the tokenizer has 21 tokens, the model embeddings for 17 of them"):
        Transformer(folder, tokenizer_name_or_path=tmp_path / "tokenizer")
    bert_tokenizer(model_max_length=5).save_pretrained(tmp_path / "tokenizer")
    assert Transformer(folder, tokenizer_name_or_path=tmp_path / "tokenizer").max_seq_length == 5


def test_a_checkpoint_without_the_head_is_no_masked_language_model(tmp_path: Path) -> None:
    transformer("feature-extraction").save(tmp_path)
    with pytest.raises(CheckpointError, match="cls.predictions"):
        Transformer(tmp_path, transformer_task="fill-mask")


def test_older_names_of_options(folder: Path, tmp_path: Path) -> None:
    older = {
        "model_args": {"torch_dtype": "bfloat16"},
        "tokenizer_args": {"model_max_length": 6},
        "config_args": {"hidden_dropout_prob": 0.0},
        "cache_dir": str(tmp_path),
    }
    module = Transformer(folder, transformer_task="fill-mask", **older)  # type: ignore[arg-type]
    assert (module.model.dtype, module.max_seq_length) == (torch.bfloat16, 6)
    assert module.config.hidden_dropout_prob == module.config["hidden_dropout_prob"] == 0.0
    with pytest.raises(AttributeError, match="the configuration has no 'hidden_dropout'"):
        _ = module.config.hidden_dropout
    assert module.get_word_embedding_dimension() == module.get_embedding_dimension() == 17
    assert torch.equal(module.tokenize("sparse rows")["input_ids"], module.preprocess(["sparse rows"])["input_ids"])
