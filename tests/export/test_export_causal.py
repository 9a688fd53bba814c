"""Graphs of models that write: one for prompts and for steps that go on, on onnxruntime against torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from backbone_helpers import randomise
from decoder_helpers import DECODER_CONFIGS
from export_helpers import check_trace, run_graph, shallow
from torch import Tensor

from sparse_encoder.backbone.cache import DynamicCache
from sparse_encoder.export import ExportReport, export_onnx
from sparse_encoder.export.descriptions import describe
from sparse_encoder.generation import CausalLanguageModel

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


class Exported(NamedTuple):
    model: CausalLanguageModel
    report: ExportReport


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    model = CausalLanguageModel.from_config(shallow(DECODER_CONFIGS, "llama"))
    randomise(model)
    used = model.hf_config.get("use_cache")
    report = export_onnx(model.eval(), tmp_path_factory.mktemp("llama") / "model.onnx")
    assert model.hf_config.get("use_cache") == used
    yield Exported(model, report)


def test_learned_places_and_transposed_weights_are_traced_too() -> None:
    model = CausalLanguageModel.from_config(shallow(DECODER_CONFIGS, "gpt2"))
    randomise(model)
    (graph,) = describe(model.eval(), None, None).values()
    check_trace(graph)


def step(model: CausalLanguageModel, ids: Tensor, mask: Tensor, past: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """Make the inputs of a step; no past is one of length 0."""
    config = model.config
    if past is None:
        shape = (len(ids), config.num_kv_heads or config.num_heads, 0, config.head_size)
        past = {f"past_key_values.0.{part}": torch.zeros(shape) for part in ("key", "value")}
    return {"input_ids": ids, "attention_mask": mask, **past}


def past_of(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"past_key_values.0.{part}": found[f"present.0.{part}"] for part in ("key", "value")}


def test_prompts_and_later_steps_were_compared(exported: Exported) -> None:
    report = exported.report
    assert report.inputs == (
        "input_ids", "attention_mask", "past_key_values.0.key", "past_key_values.0.value",
    )  # fmt: skip
    assert report.outputs == ("logits", "present.0.key", "present.0.value")
    assert report.num_cases == 7
    assert report.largest_difference is not None
    assert report.largest_difference < 1e-5


def test_axes_of_past_and_new_tokens_are_told_apart(exported: Exported) -> None:
    graph = onnx.load(exported.report.path).graph
    axes = {
        each.name: [dim.dim_param for dim in each.type.tensor_type.shape.dim if dim.dim_param]
        for each in (*graph.input, *graph.output)
    }
    assert axes["attention_mask"] == ["batch", "past_sequence + sequence"]
    assert axes["past_key_values.0.key"] == ["batch", "past_sequence"]
    assert axes["present.0.value"] == ["batch", "past_sequence + sequence"]
    assert axes["logits"] == ["batch", "sequence"]


@pytest.mark.parametrize("tokens", [1, 6])
def test_a_prompt_without_a_past_is_as_the_model_without_a_cache(exported: Exported, tokens: int) -> None:
    model, report = exported
    ids = torch.randint(3, 15, (2, tokens), generator=torch.Generator().manual_seed(tokens))
    mask = torch.ones_like(ids)
    with torch.no_grad():
        expected = model(ids, mask, use_cache=False).logits
    found = run_graph(report.path, step(model, ids, mask, None))
    torch.testing.assert_close(found["logits"], expected, atol=1e-5, rtol=1e-5)
    assert found["present.0.key"].shape[2] == tokens


def test_steps_give_what_the_whole_text_gives_also_behind_padding(exported: Exported) -> None:
    model, report = exported
    ids = torch.randint(3, 15, (2, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    with torch.no_grad():
        alone = model(ids[1:, 3:], use_cache=False).logits
    found = run_graph(report.path, step(model, ids[:, :4], mask[:, :4], None))
    logits = [found["logits"]]
    for place in range(4, 7):
        found = run_graph(report.path, step(model, ids[:, place : place + 1], mask[:, : place + 1], past_of(found)))
        logits.append(found["logits"])
    whole = run_graph(report.path, step(model, ids, mask, None))
    steps = torch.cat(logits, dim=1)
    torch.testing.assert_close(steps[:, 3:], whole["logits"][:, 3:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(steps[1:, 3:], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["present.0.key"], whole["present.0.key"], atol=1e-5, rtol=1e-5)


def test_greedy_decoding_by_the_graph_is_that_of_generate(exported: Exported) -> None:
    model, report = exported
    ids = torch.tensor([[3, 5, 4]])
    told = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, eos_token_id=None
    )
    found, text = run_graph(report.path, step(model, ids, torch.ones_like(ids), None)), ids
    for _ in range(6):
        new = found["logits"][:, -1:].argmax(dim=-1)
        text = torch.cat([text, new], dim=1)
        found = run_graph(report.path, step(model, new, torch.ones_like(text), past_of(found)))
    assert text.tolist() == torch.as_tensor(told)[:, : text.shape[1]].tolist()


def test_the_past_of_a_cache_is_the_graphs(exported: Exported) -> None:
    model, report = exported
    ids, cache = torch.tensor([[4, 7, 9, 3]]), DynamicCache()
    with torch.no_grad():
        model(ids, past_key_values=cache)
    found = run_graph(report.path, step(model, ids, torch.ones_like(ids), None))
    torch.testing.assert_close(found["present.0.key"], cache[0].keys, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["present.0.value"], cache[0].values, atol=1e-5, rtol=1e-5)
