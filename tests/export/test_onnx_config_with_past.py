"""OnnxConfigWithPast and OnnxSeq2SeqConfigWithPast: axes and batches of a past, by hand; onnx is not needed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from decoder_helpers import DECODER_CONFIGS
from model_helpers import write_tokenizer
from seq2seq_helpers import SEQ2SEQ_CONFIGS

from sparse_encoder.backbone.families import read_config
from sparse_encoder.export import DecoderOnnxConfig, EncoderDecoderOnnxConfig
from sparse_encoder.tokenizer import Tokenizer

PLAIN = SimpleNamespace(num_layers=2, num_attention_heads=4, hidden_size=12, use_cache=True)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return Tokenizer.from_pretrained(folder)


def test_without_a_past_nothing_is_added() -> None:
    config = DecoderOnnxConfig(PLAIN, "causal-lm")
    assert list(config.inputs) == ["input_ids", "attention_mask"]
    assert list(config.outputs) == ["logits"]
    assert config.values_override == {"use_cache": False}


def test_the_axes_of_a_past_and_of_what_follows_have_names_of_their_own() -> None:
    config = DecoderOnnxConfig.with_past(PLAIN, "causal-lm")
    assert config.values_override == {"use_cache": True}
    assert config.inputs == {
        "input_ids": {0: "batch", 1: "sequence"},
        "attention_mask": {0: "batch", 1: "past_sequence + sequence"},
        **{
            f"past_key_values.{layer}.{part}": {0: "batch", 2: "past_sequence"}
            for layer in (0, 1)
            for part in ("key", "value")
        },
    }
    assert config.outputs == {
        "logits": {0: "batch", 1: "sequence"},
        **{
            f"present.{layer}.{part}": {0: "batch", 2: "past_sequence + sequence"}
            for layer in (0, 1)
            for part in ("key", "value")
        },
    }


def test_axes_are_filled_in_place_and_values_may_be_inverted() -> None:
    axes = {"input_ids": {0: "batch"}}
    DecoderOnnxConfig.with_past(PLAIN).fill_with_past_key_values_(axes, "inputs", inverted_values_shape=True)
    assert axes["past_key_values.1.key"] == {0: "batch", 2: "past_sequence"}
    assert axes["past_key_values.1.value"] == {0: "batch", 1: "past_sequence"}
    with pytest.raises(ValueError, match="direction must be 'inputs' or 'outputs', got 'both'"):
        DecoderOnnxConfig(PLAIN).fill_with_past_key_values_({}, "both")


@pytest.mark.parametrize("name", ["num_layers", "num_attention_heads"])
def test_what_a_configuration_does_not_say_is_to_be_overridden(name: str) -> None:
    with pytest.raises(AttributeError, match=f"override the property '{name}'"):
        getattr(DecoderOnnxConfig(SimpleNamespace()), name)


def test_shared_heads_and_their_own_width_count() -> None:
    model = read_config(DECODER_CONFIGS["llama"])
    config = DecoderOnnxConfig.with_past(model, "causal-lm")
    assert config.num_attention_heads == model.num_kv_heads
    assert config.num_attention_heads < model.num_heads
    assert config.head_width == model.head_size


def test_a_batch_with_a_past_is_two_tokens_longer_there(tokenizer: Tokenizer) -> None:
    batch = DecoderOnnxConfig.with_past(PLAIN, "causal-lm").generate_dummy_inputs(tokenizer, 3, 5)
    assert batch["input_ids"].shape == (3, 5)
    assert batch["attention_mask"].tolist() == [[1] * 12] * 3  # 5 new and 7 of the past
    past = batch["past_key_values"]
    assert len(past) == 2
    for pair in past:
        for tensor in pair:
            assert torch.equal(tensor, torch.zeros(3, 4, 7, 3))
    again = DecoderOnnxConfig.with_past(PLAIN).generate_dummy_inputs(tokenizer=tokenizer)
    assert again["attention_mask"].shape == (2, 18)
    with pytest.raises(ValueError, match="older name"):
        DecoderOnnxConfig.with_past(PLAIN).generate_dummy_inputs(tokenizer, tokenizer=tokenizer)


def test_keys_and_values_are_named_by_layer() -> None:
    flatten = DecoderOnnxConfig.flatten_output_collection_property
    assert flatten("present", [("a", "b"), ("c", "d")]) == {
        "present.0.key": "a",
        "present.0.value": "b",
        "present.1.key": "c",
        "present.1.value": "d",
    }
    assert list(flatten("past_key_values", [("a", "b")])) == ["past_key_values.0.key", "past_key_values.0.value"]
    assert flatten("hidden", [["a"], ["b"]]) == {"hidden.0": "a", "hidden.1": "b"}


UNEQUAL = SimpleNamespace(
    encoder_layers=3, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=4, d_model=8, head_dim=2
)


def test_both_stacks_are_counted() -> None:
    config = EncoderDecoderOnnxConfig.with_past(UNEQUAL, "seq2seq-lm")
    assert config.num_layers == (3, 1)
    assert config.num_attention_heads == (2, 4)
    same = SimpleNamespace(num_layers=2, num_heads=3, d_kv=5)
    assert EncoderDecoderOnnxConfig(same, "seq2seq-lm").num_layers == (2, 2)
    deeper = SimpleNamespace(num_layers=2, num_decoder_layers=5, num_heads=3, d_kv=5)
    assert EncoderDecoderOnnxConfig(deeper, "seq2seq-lm").num_layers == (2, 5)
    with pytest.raises(AttributeError, match="'num_layers'"):
        _ = EncoderDecoderOnnxConfig(SimpleNamespace(), "seq2seq-lm").num_layers


def test_two_stacks_of_our_own() -> None:
    model = read_config(SEQ2SEQ_CONFIGS["bart with scaled embeddings"])
    assert model.decoder is not None
    config = EncoderDecoderOnnxConfig.with_past(model, "seq2seq-lm")
    assert config.num_layers == (3, 1)
    assert config.num_attention_heads == (model.num_heads, model.decoder.num_heads)


@pytest.mark.parametrize("encoder, decoder", [(3, 1), (1, 3), (2, 2)])
def test_every_layer_of_the_decoder_has_a_past_whatever_the_encoder_has(encoder: int, decoder: int) -> None:
    values = {**vars(UNEQUAL), "encoder_layers": encoder, "decoder_layers": decoder}
    config = EncoderDecoderOnnxConfig.with_past(SimpleNamespace(**values), "seq2seq-lm")
    inputs: dict[str, dict[int, str]] = {}
    config.fill_with_past_key_values_(inputs, "inputs")
    assert list(inputs) == [
        f"past_key_values.{layer}.{stack}.{part}"
        for layer in range(decoder)
        for stack in ("decoder", "encoder")
        for part in ("key", "value")
    ]
    assert inputs["past_key_values.0.decoder.key"] == {0: "batch", 2: "past_decoder_sequence"}
    assert inputs["past_key_values.0.encoder.value"] == {0: "batch", 2: "past_encoder_sequence"}
    outputs: dict[str, dict[int, str]] = {}
    config.fill_with_past_key_values_(outputs, "outputs", inverted_values_shape=True)
    assert outputs["present.0.decoder.key"] == {0: "batch", 2: "past_decoder_sequence + sequence"}
    assert outputs["present.0.decoder.value"] == {0: "batch", 1: "past_decoder_sequence + sequence"}
    assert outputs["present.0.encoder.value"] == {0: "batch", 1: "past_encoder_sequence"}
    with pytest.raises(ValueError, match="direction"):
        config.fill_with_past_key_values_({}, "sideways")


def test_outputs_are_of_the_encoder_or_the_decoder() -> None:
    assert EncoderDecoderOnnxConfig(UNEQUAL, "seq2seq-lm").outputs == {"logits": {0: "batch", 1: "decoder_sequence"}}
    assert EncoderDecoderOnnxConfig(UNEQUAL, "default").outputs == {
        "last_hidden_state": {0: "batch", 1: "decoder_sequence"}
    }


def test_a_step_of_two_stacks(tokenizer: Tokenizer) -> None:
    batch = EncoderDecoderOnnxConfig.with_past(UNEQUAL, "seq2seq-lm").generate_dummy_inputs(tokenizer, 3, 6)
    assert batch["attention_mask"].shape == (3, 6)
    assert batch["decoder_input_ids"].shape == (3, 1)
    assert batch["decoder_attention_mask"].tolist() == [[1] * 5] * 3  # a new token, and 4 of the past
    shapes = [[tuple(tensor.shape) for tensor in layer] for layer in batch["past_key_values"]]
    assert shapes == [[(3, 4, 4, 2), (3, 4, 4, 2), (3, 4, 6, 2), (3, 4, 6, 2)]]


def test_the_whole_of_two_stacks(tokenizer: Tokenizer) -> None:
    batch = EncoderDecoderOnnxConfig(UNEQUAL, "seq2seq-lm").generate_dummy_inputs(tokenizer)
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask"), (2, 8)
    )


def test_four_tensors_of_a_layer_are_named_by_stack() -> None:
    found = EncoderDecoderOnnxConfig.flatten_output_collection_property("present", [("a", "b", "c", "d")])
    assert found == {
        "present.0.decoder.key": "a",
        "present.0.decoder.value": "b",
        "present.0.encoder.key": "c",
        "present.0.encoder.value": "d",
    }
