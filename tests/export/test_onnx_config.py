"""OnnxConfig: inputs, outputs, batches to trace with; onnx is not needed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from backbone_helpers import TINY_CONFIGS
from model_helpers import write_tokenizer
from process_helpers import run_python

from sparse_encoder.backbone.families import read_config
from sparse_encoder.export import EncoderOnnxConfig, OnnxConfig, PatchingSpec
from sparse_encoder.export.tasks import TASKS
from sparse_encoder.tokenizer import Tokenizer

UNK, CLS, SEP = 1, 2, 3


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return Tokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("task", "outputs"),
    [
        ("causal-lm", {"logits": {0: "batch", 1: "sequence"}}),
        ("default", {"last_hidden_state": {0: "batch", 1: "sequence"}}),
        ("feature-extraction", {"last_hidden_state": {0: "batch", 1: "sequence"}}),
        ("masked-lm", {"logits": {0: "batch", 1: "sequence"}}),
        ("multiple-choice", {"logits": {0: "batch"}}),
        (
            "question-answering",
            {"start_logits": {0: "batch", 1: "sequence"}, "end_logits": {0: "batch", 1: "sequence"}},
        ),
        ("seq2seq-lm", {"logits": {0: "batch", 1: "decoder_sequence"}}),
        ("sequence-classification", {"logits": {0: "batch"}}),
        ("sparse-embedding", {"sentence_embedding": {0: "batch"}}),
        ("token-classification", {"logits": {0: "batch", 1: "sequence"}}),
    ],
)
def test_each_task_has_its_outputs(task: str, outputs: dict[str, dict[int, str]]) -> None:
    config = EncoderOnnxConfig(read_config(TINY_CONFIGS["bert"]), task=task)
    assert config.outputs == outputs
    config.outputs["more"] = {}
    next(iter(config.outputs.values()))[7] = "x"
    assert config.outputs == outputs  # what is given out is a copy
    assert set(TASKS) >= {task}


def test_an_unknown_task_lists_the_known() -> None:
    with pytest.raises(ValueError, match="unknown task 'image-classification'.*'causal-lm'"):
        EncoderOnnxConfig(read_config(TINY_CONFIGS["bert"]), task="image-classification")


def test_inputs_are_in_the_order_of_forward_and_follow_the_model() -> None:
    axes = {0: "batch", 1: "sequence"}
    bert = EncoderOnnxConfig.from_model_config(read_config(TINY_CONFIGS["bert"]))
    assert list(bert.inputs) == ["input_ids", "attention_mask", "token_type_ids"]
    assert all(value == axes for value in bert.inputs.values())
    assert list(EncoderOnnxConfig(TINY_CONFIGS["distilbert"]).inputs) == ["input_ids", "attention_mask"]
    choices = EncoderOnnxConfig(TINY_CONFIGS["bert"], task="multiple-choice")
    assert choices.inputs["input_ids"] == {0: "batch", 1: "choice", 2: "sequence"}


def test_constants() -> None:
    config = EncoderOnnxConfig(TINY_CONFIGS["bert"])
    assert (config.default_batch_size, config.default_sequence_length, config.default_num_choices) == (2, 8, 4)
    assert (config.default_onnx_opset, config.is_torch_support_available) == (20, True)
    assert config.atol_for_validation == 1e-5
    assert EncoderOnnxConfig({**TINY_CONFIGS["bert"], "torch_dtype": "float16"}).atol_for_validation == 1e-2


@pytest.mark.parametrize(("count", "outside"), [(0, False), (2**29 - 1, False), (2**29, True), (10**10, True)])
def test_external_data_begins_at_two_gigabytes_of_float32(count: int, outside: bool) -> None:
    assert OnnxConfig.use_external_data_format(count) is outside


def test_values_are_overridden_only_where_a_configuration_has_them() -> None:
    assert EncoderOnnxConfig(TINY_CONFIGS["bert"]).values_override is None
    assert EncoderOnnxConfig(SimpleNamespace(use_cache=True)).values_override == {"use_cache": False}


def test_nested_outputs_are_numbered() -> None:
    found = OnnxConfig.flatten_output_collection_property("hidden", [["a", "b"], ["c"]])
    assert found == {"hidden.0": "a", "hidden.1": "b", "hidden.2": "c"}


def test_the_hook_for_onnxruntime_changes_nothing_by_itself() -> None:
    given = {"input_ids": torch.zeros(1, 2)}
    assert EncoderOnnxConfig(TINY_CONFIGS["bert"]).generate_dummy_inputs_onnxruntime(given) is given


def test_a_batch_is_unknown_tokens_between_special_ones(tokenizer: Tokenizer) -> None:
    batch = EncoderOnnxConfig(TINY_CONFIGS["bert"]).generate_dummy_inputs(tokenizer, framework="pt")
    assert list(batch) == ["input_ids", "attention_mask", "token_type_ids"]
    assert batch["input_ids"].tolist() == [[CLS, *[UNK] * 6, SEP]] * 2
    assert batch["attention_mask"].tolist() == [[1] * 8] * 2
    assert batch["token_type_ids"].tolist() == [[0] * 8] * 2
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_sizes_are_those_of_the_call(tokenizer: Tokenizer) -> None:
    config = EncoderOnnxConfig(TINY_CONFIGS["distilbert"])
    assert config.generate_dummy_inputs(tokenizer, 3, 31)["input_ids"].shape == (3, 31)
    assert set(config.generate_dummy_inputs(tokenizer)) == {"input_ids", "attention_mask"}
    with pytest.raises(ValueError, match="seq_length must be at least 2"):
        config.generate_dummy_inputs(tokenizer, 3, 1)


def test_a_pair_has_two_types_and_the_same_length(tokenizer: Tokenizer) -> None:
    batch = EncoderOnnxConfig(TINY_CONFIGS["bert"]).generate_dummy_inputs(tokenizer, is_pair=True)
    assert batch["input_ids"][0].tolist() == [CLS, UNK, UNK, UNK, SEP, UNK, UNK, SEP]
    assert batch["token_type_ids"][0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


def test_choices_are_an_axis_of_their_own(tokenizer: Tokenizer) -> None:
    config = EncoderOnnxConfig(TINY_CONFIGS["bert"], task="multiple-choice")
    assert config.generate_dummy_inputs(tokenizer)["input_ids"].shape == (2, 4, 8)
    assert config.generate_dummy_inputs(tokenizer, 3, 5, 2)["attention_mask"].shape == (3, 2, 5)


def test_the_older_name_of_the_tokenizer(tokenizer: Tokenizer) -> None:
    config = EncoderOnnxConfig(TINY_CONFIGS["bert"])
    assert config.generate_dummy_inputs(tokenizer=tokenizer)["input_ids"].shape == (2, 8)
    with pytest.raises(ValueError, match="give preprocessor; tokenizer is its older name"):
        config.generate_dummy_inputs(preprocessor=tokenizer, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_channels", 1),
        ("image_width", 41),
        ("image_height", 39),
        ("sampling_rate", 16000),
        ("time_duration", 1.0),
        ("frequency", 440),
    ],
)
def test_arguments_for_pictures_and_sound_are_refused_when_changed(
    tokenizer: Tokenizer, name: str, value: float
) -> None:
    with pytest.raises(ValueError, match=f"{name} is for pictures or sound"):
        EncoderOnnxConfig(TINY_CONFIGS["bert"]).generate_dummy_inputs(tokenizer, **{name: value})


def test_other_frameworks_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="framework must be 'pt'.*got 'tf'"):
        EncoderOnnxConfig(TINY_CONFIGS["bert"]).generate_dummy_inputs(tokenizer, framework="tf")


def test_patches_are_put_in_and_taken_out() -> None:
    place = SimpleNamespace(double=lambda number: 2 * number)
    first = place.double
    spec = PatchingSpec(place, "double", lambda number: 3 * number)
    config = EncoderOnnxConfig(TINY_CONFIGS["bert"], patching_specs=[spec])
    config.patch_ops()
    assert place.double(2) == 6
    config.restore_ops()
    assert place.double is first
    with pytest.raises(AttributeError, match="triple"):
        EncoderOnnxConfig(TINY_CONFIGS["bert"], patching_specs=[PatchingSpec(place, "triple", len)])


def test_a_wrapper_is_put_around_what_is_set() -> None:
    class Holder:
        @staticmethod
        def name() -> str:
            return "first"

    spec = PatchingSpec(Holder, "name", lambda: "other", op_wrapper=staticmethod)
    config = EncoderOnnxConfig(TINY_CONFIGS["bert"], patching_specs=[spec])
    config.patch_ops()
    assert Holder().name() == "other"
    config.restore_ops()
    assert Holder().name() == "first"


def test_configurations_need_no_onnx() -> None:
    code = (
        "import sys\n"
        "for name in ('onnx', 'onnxscript', 'onnxruntime'): sys.modules[name] = None\n"
        "from sparse_encoder.export import DecoderOnnxConfig, EncoderOnnxConfig, FeaturesManager, export_onnx\n"
        "from types import SimpleNamespace\n"
        "config = SimpleNamespace(num_layers=1, num_heads=2, head_size=3)\n"
        "print(len(DecoderOnnxConfig.with_past(config, 'causal-lm').outputs))\n"
    )
    assert run_python(code) == "3"


def test_sizes_and_tokenizers_are_judged(tokenizer: Tokenizer) -> None:
    config = EncoderOnnxConfig(TINY_CONFIGS["bert"])
    for name in ("batch_size", "seq_length"):
        for value in ("2", 2.0, True):
            with pytest.raises(TypeError, match="must be an integer, got"):
                config.generate_dummy_inputs(tokenizer, **{name: value})
    for both in ({"preprocessor": tokenizer, "tokenizer": tokenizer}, {}):
        with pytest.raises(ValueError, match="give preprocessor; tokenizer is its older name"):
            config.generate_dummy_inputs(**both)
    older = config.generate_dummy_inputs(tokenizer=tokenizer)
    assert older["input_ids"].tolist() == config.generate_dummy_inputs(tokenizer)["input_ids"].tolist()
