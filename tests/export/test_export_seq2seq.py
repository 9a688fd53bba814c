"""The two graphs of an encoder with a decoder, on onnxruntime against torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from export_helpers import check_trace, run_graph
from seq2seq_helpers import SEQ2SEQ_CONFIGS, randomise_pair

from sparse_encoder.export import ExportReport, export_onnx
from sparse_encoder.export.descriptions import describe
from sparse_encoder.generation import Seq2SeqModel

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SHALLOW = {
    "t5": {"num_layers": 2, "num_decoder_layers": 1},
    "bart": {"encoder_layers": 1, "decoder_layers": 2},
}


class Exported(NamedTuple):
    model: Seq2SeqModel
    report: ExportReport


def shallow_model(name: str) -> Seq2SeqModel:
    model = Seq2SeqModel.from_config({**SEQ2SEQ_CONFIGS[name], **SHALLOW[name]})
    randomise_pair(model)
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    model = shallow_model("t5")
    yield Exported(model, export_onnx(model, tmp_path_factory.mktemp("t5")))


def test_a_decoder_deeper_than_its_encoder_is_traced_whole() -> None:
    model = shallow_model("bart")
    graphs = describe(model, None, None)
    assert list(graphs) == ["encoder_model.onnx", "decoder_model.onnx"]
    last = f"{layers_of(model)[-1]}.encoder.value"
    assert f"present.{last}" in graphs["encoder_model.onnx"].outputs
    assert f"past_key_values.{last}" in graphs["decoder_model.onnx"].inputs
    for graph in graphs.values():
        check_trace(graph)


def layers_of(model: Seq2SeqModel) -> range:
    """Return the numbers of the decoder's layers, other than those of the encoder's."""
    assert model.config.decoder is not None
    assert model.config.decoder.num_layers != model.config.num_layers
    return range(model.config.decoder.num_layers)


def test_there_are_two_graphs_and_every_layer_of_the_decoder_has_a_past(exported: Exported) -> None:
    encoder, (decoder,) = exported.report, exported.report.others
    layers = layers_of(exported.model)
    assert (encoder.path.name, decoder.path.name) == ("encoder_model.onnx", "decoder_model.onnx")
    assert encoder.path.parent == decoder.path.parent
    assert encoder.inputs == ("input_ids", "attention_mask")
    parts = [f"{layer}.encoder.{part}" for layer in layers for part in ("key", "value")]
    assert encoder.outputs == ("last_hidden_state", *(f"present.{part}" for part in parts))
    assert {f"past_key_values.{part}" for part in parts} < set(decoder.inputs)
    assert decoder.outputs == (
        "logits",
        *(f"present.{layer}.decoder.{part}" for layer in layers for part in ("key", "value")),
    )
    for report in (encoder, decoder):
        assert report.num_cases == 7
        assert report.largest_difference is not None
        assert report.largest_difference < 1e-4


def test_both_graphs_decode_as_the_model_does(exported: Exported) -> None:
    model, report = exported
    ids = torch.randint(3, 15, (2, 6), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    answer = torch.randint(3, 15, (2, 4), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = model(ids, mask, decoder_input_ids=answer, use_cache=False).logits
    encoded = run_graph(report.path, {"input_ids": ids, "attention_mask": mask})
    decoder, layers = model.config.decoder, layers_of(model)
    assert decoder is not None
    empty = torch.zeros(2, decoder.num_kv_heads or decoder.num_heads, 0, decoder.head_size)
    past = {f"past_key_values.{layer}.decoder.{part}": empty for layer in layers for part in ("key", "value")}
    past |= {name.replace("present", "past_key_values"): each for name, each in encoded.items() if "present" in name}
    logits = []
    for start, end in ((0, 2), (2, 3), (3, 4)):
        inputs = {"attention_mask": mask, "decoder_input_ids": answer[:, start:end]}
        inputs["decoder_attention_mask"] = torch.ones(2, end, dtype=torch.int64)
        found = run_graph(report.others[0].path, {**inputs, **past})
        logits.append(found["logits"])
        past |= {name.replace("present", "past_key_values"): each for name, each in found.items() if name != "logits"}
    torch.testing.assert_close(torch.cat(logits, dim=1), expected, atol=1e-4, rtol=1e-4)
