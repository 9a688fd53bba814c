"""Configurations that name inputs in an order of their own: bound by name, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import randomise
from decoder_helpers import DECODER_CONFIGS
from export_helpers import shallow
from model_helpers import write_tokenizer
from seq2seq_helpers import SEQ2SEQ_CONFIGS

from sparse_encoder.export import OnnxConfigWithPast, OnnxSeq2SeqConfigWithPast, documented, export
from sparse_encoder.export.descriptions import graph_by_config
from sparse_encoder.export.graph import Graph
from sparse_encoder.generation import CausalLanguageModel, Seq2SeqModel
from sparse_encoder.tokenizer import Tokenizer

ORDER = ["input_ids", "attention_mask", "past_key_values.0.key", "past_key_values.0.value"]


class PastBeforeMask(OnnxConfigWithPast):
    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        inputs = {"input_ids": {0: "batch", 1: "sequence"}}
        self.fill_with_past_key_values_(inputs, direction="inputs")
        return {**inputs, "attention_mask": {0: "batch", 1: "past_sequence + sequence"}}


class WithPlaces(PastBeforeMask):
    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        return {**super().inputs, "position_ids": {0: "batch", 1: "sequence"}}


class WithTexts(OnnxSeq2SeqConfigWithPast):
    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        axes = {0: "batch", 1: "encoder_sequence"}
        inputs = {"input_ids": axes, "attention_mask": axes, "decoder_input_ids": {0: "batch"}}
        inputs["decoder_attention_mask"] = {0: "batch", 1: "past_decoder_sequence + sequence"}
        if self.use_past:
            self.fill_with_past_key_values_(inputs, direction="inputs")
        return inputs


@pytest.fixture(scope="module")
def model() -> CausalLanguageModel:
    model = CausalLanguageModel.from_config(shallow(DECODER_CONFIGS, "gpt2"))
    randomise(model)
    return model.eval()


def check_is_bound(graph: Graph) -> None:
    """Hold a graph's module, called in its order, against the model, called by name."""
    with torch.no_grad():
        found = graph.module(*(graph.example[name] for name in graph.inputs))
        expected = graph.reference(graph.example)
    torch.testing.assert_close(dict(zip(graph.outputs, found, strict=True)), expected)


def test_inputs_are_bound_by_name(model: CausalLanguageModel) -> None:
    config = PastBeforeMask.with_past(model.config, task="causal-lm")
    assert list(config.inputs) != ORDER
    graph = graph_by_config(model, config)
    assert list(graph.inputs) == list(graph.example) == ORDER
    assert graph.inputs["attention_mask"] == {0: "batch", 1: "past_sequence + sequence"}
    check_is_bound(graph)


def test_export_gives_the_tracer_its_order(
    model: CausalLanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Graph] = []
    monkeypatch.setattr(documented, "write_graphs", lambda graphs, *_: written.extend(graphs.values()))
    write_tokenizer(tmp_path)
    config = PastBeforeMask.with_past(model.config, task="causal-lm")
    tokenizer: Any = Tokenizer.from_pretrained(tmp_path)
    tokenizer.unk_token_id = 1
    names, _ = export(tokenizer, model, config, 20, tmp_path / "model.onnx")
    assert names == ["input_ids", "attention_mask", "past_key_values"]
    (graph,) = written
    assert list(graph.example) == list(graph.inputs) == ORDER
    check_is_bound(graph)


def test_inputs_that_a_graph_lacks_are_named(model: CausalLanguageModel) -> None:
    with pytest.raises(ValueError, match=r"must be \['input_ids', 'attention_mask'\].*leave out \['position_ids'\]"):
        graph_by_config(model, WithPlaces.with_past(model.config, task="causal-lm"))
    pair = Seq2SeqModel.from_config(SEQ2SEQ_CONFIGS["t5"])
    config = WithTexts.with_past(pair.config, task="seq2seq-lm")
    with pytest.raises(ValueError, match=r"another graph's; leave out \['input_ids'\]"):
        graph_by_config(pair, config)
