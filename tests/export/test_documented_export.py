"""Export as the guide of transformers shows it: names, configurations of one's own, and every kind of feature."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS
from decoder_helpers import DECODER_CONFIGS
from export_helpers import run_graph, shallow, tiny_language_model
from model_helpers import write_masked_language_model, write_tokenizer
from seq2seq_helpers import SEQ2SEQ_CONFIGS

from sparse_encoder.backbone import EncoderModel
from sparse_encoder.export import (
    EXTERNAL_DATA_FORMAT_SIZE_LIMIT,
    FeaturesManager,
    OnnxConfig,
    OnnxConfigWithPast,
    ParameterFormat,
    compute_serialized_parameters_size,
    export,
    validate_model_outputs,
)
from sparse_encoder.export.__main__ import main
from sparse_encoder.export.config import DEFAULT_ONNX_OPSET
from sparse_encoder.export.convert import ensure_model_and_config_inputs_match
from sparse_encoder.export.utils import compute_effective_axis_dimension
from sparse_encoder.generation import CausalLanguageModel, Seq2SeqModel
from sparse_encoder.tokenizer import Tokenizer


class OwnEncoder(OnnxConfig):
    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:  # type: ignore[override]  # as the guide has it
        axes = {0: "batch", 1: "sequence"}
        return OrderedDict([("input_ids", axes), ("attention_mask", axes), ("token_type_ids", axes)])


class OwnDecoder(OnnxConfigWithPast):
    """As scripts write it for GPT-2: the past before the mask, and a padding token where there is none."""

    def __init__(self, config: object, task: str = "default", use_past: bool = False) -> None:
        super().__init__(config, task=task, use_past=use_past)
        if not getattr(self._config, "pad_token_id", None):
            self._config.pad_token_id = 0

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        common = OrderedDict({"input_ids": {0: "batch", 1: "sequence"}})
        self.fill_with_past_key_values_(common, direction="inputs")
        common["attention_mask"] = {0: "batch", 1: "past_sequence + sequence"}
        return common

    @property
    def num_layers(self) -> int:
        return int(self._config.n_layer)

    @property
    def num_attention_heads(self) -> int:
        return int(self._config.n_head)

    def generate_dummy_inputs(self, tokenizer: object, *sizes: int, framework: str | None = None) -> dict[str, Any]:  # type: ignore[override]
        common = super(OnnxConfigWithPast, self).generate_dummy_inputs(tokenizer, *sizes, framework=framework)
        batch, tokens = common["input_ids"].shape
        shape = (batch, self.num_attention_heads, tokens + 2, self._config.hidden_size // self.num_attention_heads)
        past = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(self.num_layers)]
        mask = torch.cat([common["attention_mask"], torch.ones(batch, tokens + 2, dtype=torch.int64)], dim=1)
        return OrderedDict(input_ids=common["input_ids"], past_key_values=past, attention_mask=mask)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    write_tokenizer(tmp_path)
    found = Tokenizer.from_pretrained(tmp_path)
    found.unk_token_id = 1  # below every tiny vocabulary
    return found


def test_sizes_of_axes_and_of_weights() -> None:
    assert [compute_effective_axis_dimension(-1, 2), compute_effective_axis_dimension(0, 8, 3)] == [2, 5]
    assert compute_effective_axis_dimension(9, 8, num_token_to_add=2) == 7
    assert compute_serialized_parameters_size(3, ParameterFormat.Float) == 3 * ParameterFormat.Float.size == 12
    last = EXTERNAL_DATA_FORMAT_SIZE_LIMIT // ParameterFormat.Float.size
    assert [OnnxConfig.use_external_data_format(count) for count in (0, last - 1, last)] == [False, False, True]


def test_constants_of_a_configuration() -> None:
    config = OwnEncoder(TINY_CONFIGS["bert"])
    assert (config.default_fixed_batch, config.default_fixed_sequence, config.default_fixed_num_choices) == (2, 8, 4)
    assert config.is_torch_support_available and config.default_onnx_opset == DEFAULT_ONNX_OPSET
    assert torch.__version__ >= str(config.torch_onnx_minimum_version)


def test_arguments_of_a_model_are_matched_in_its_order() -> None:
    model = tiny_language_model()
    match = ensure_model_and_config_inputs_match
    assert match(model, {"attention_mask": 0, "input_ids": 0}.keys()) == (True, ["input_ids", "attention_mask"])
    assert match(model, ["pixel_values", "input_ids"]) == (False, ["input_ids"])


def test_an_input_that_the_family_has_not_is_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = EncoderModel.from_config(TINY_CONFIGS["distilbert"])
    with pytest.raises(ValueError, match=r"a graph of a distilbert model has the inputs .*names \['token_type_ids'\]"):
        export(tokenizer, model, OwnEncoder(model.config), None, tmp_path / "model.onnx")


def test_a_configuration_of_ones_own_sets_what_the_model_lacks(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = CausalLanguageModel.from_config({**shallow(DECODER_CONFIGS, "gpt2"), "n_positions": 33})
    before = model.config.pad_token_id
    config = OwnDecoder.with_past(model.config, task="causal-lm")
    assert config._config.pad_token_id == 0 and model.config.pad_token_id == before
    names = export(tokenizer, model, config, config.default_onnx_opset, tmp_path / "model.onnx")
    assert names[0] == ["input_ids", "attention_mask", "past_key_values"]
    validate_model_outputs(config, tokenizer, model, tmp_path / "model.onnx", names[1], 1e-4)


def test_a_decoder_whose_example_has_one_new_token_takes_several(tokenizer: Tokenizer, tmp_path: Path) -> None:
    bart = {**SEQ2SEQ_CONFIGS["bart"], "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 20}
    model = Seq2SeqModel.from_config(bart)
    config = FeaturesManager.get_config("bart", "seq2seq-lm-with-past")(model.config)
    assert config.generate_dummy_inputs(tokenizer)["decoder_input_ids"].shape == (2, 1)
    _, outputs = export(tokenizer, model, config, config.default_onnx_opset, tmp_path / "model.onnx")
    validate_model_outputs(config, tokenizer, model, tmp_path / "model.onnx", outputs, config.atol_for_validation)


def test_the_command_writes_a_graph_and_holds_it_against_the_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_masked_language_model(tmp_path / "model")
    with caplog.at_level("INFO", logger="sparse_encoder.export"):
        main(["-m", str(tmp_path / "model"), "--feature=masked-lm", "--atol", "1e-4", str(tmp_path / "onnx")])
    assert f"All good, model saved at: {(tmp_path / 'onnx/model.onnx').as_posix()}" in caplog.text
    ids = torch.tensor([[2, 7, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    assert run_graph(tmp_path / "onnx" / "model.onnx", inputs)["logits"].shape[:2] == (1, 3)
    with pytest.raises(SystemExit):
        main(["--model", str(tmp_path / "model"), "--feature", "image-classification", str(tmp_path)])
