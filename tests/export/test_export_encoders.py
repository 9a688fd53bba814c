"""Graphs of encoders, masked-language models and taggers, on onnxruntime against torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, V, randomise
from export_helpers import run_graph, shallow, tiny_language_model
from model_helpers import write_tokenizer

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel
from sparse_encoder.export import (
    ExportReport,
    FeaturesManager,
    OutputMismatchError,
    export,
    export_onnx,
    validate_model_outputs,
)
from sparse_encoder.token_classification import TokenClassificationModel
from sparse_encoder.tokenizer import Tokenizer

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MaskedLanguageModel, ExportReport]]:
    model = tiny_language_model().train()
    model.register_forward_hook(lambda *_: pytest.fail("a hook ran while the model was traced"), prepend=True)
    hooks = dict(model.backbone.layers[0]._forward_hooks)
    grad = torch.is_grad_enabled()
    report = export_onnx(model, tmp_path_factory.mktemp("bert") / "model.onnx", validate=False)
    assert model.training
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled() is grad
    assert model.backbone.layers[0]._forward_hooks == hooks
    assert len(model._forward_hooks) == 1
    model._forward_hooks.clear()
    model.eval()
    yield model, report


def inputs_of(texts: int, tokens: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, V, (texts, tokens), generator=torch.Generator().manual_seed(texts * tokens))
    mask = torch.ones_like(ids)
    mask[0, tokens - tokens // 3 :] = 0
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": (torch.arange(tokens) % 2).expand_as(ids)}


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 5), (3, 26), (7, 3)])
def test_logits_are_those_of_torch_at_any_shape(
    exported: tuple[MaskedLanguageModel, ExportReport], shape: tuple[int, int]
) -> None:
    model, report = exported
    inputs = inputs_of(*shape)
    with torch.no_grad():
        expected = model(**inputs)
    torch.testing.assert_close(run_graph(report.path, inputs)["logits"], expected, atol=1e-5, rtol=1e-5)


def test_the_file_has_the_opset_and_the_names_it_was_asked_for(
    exported: tuple[MaskedLanguageModel, ExportReport],
) -> None:
    _, report = exported
    graph = onnx.load(report.path)
    onnx.checker.check_model(graph)
    assert {each.domain: each.version for each in graph.opset_import}[""] == report.opset == 20
    axes = {each.name: [dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in
            (*graph.graph.input, *graph.graph.output)}  # fmt: skip
    names = ("input_ids", "attention_mask", "token_type_ids")
    assert axes == {**dict.fromkeys(names, ["batch", "sequence"]), "logits": ["batch", "sequence", V]}
    assert {prop.key: prop.value for prop in graph.metadata_props} == {
        "sparse_encoder.version": "1",
        "sparse_encoder.task": "masked-lm",
        "sparse_encoder.longest": "26",
    }
    assert str(Path(__file__).parent) not in str(graph)  # nor where the code lies
    assert "site-packages" not in str(graph)
    assert (report.num_cases, report.largest_difference, report.external_data) == (0, None, None)
    assert report.num_bytes == report.path.stat().st_size


def test_ids_of_32_bits_are_refused_by_the_runtime(exported: tuple[MaskedLanguageModel, ExportReport]) -> None:
    inputs = {name: tensor.int() for name, tensor in inputs_of(1, 2).items()}
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="expected: .tensor.int64"):
        run_graph(exported[1].path, inputs)


def test_the_documented_steps_write_and_judge_a_graph(tmp_path: Path) -> None:
    model = tiny_language_model()
    write_tokenizer(tmp_path)
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    tokenizer.unk_token_id = 1
    _, constructor = FeaturesManager.check_supported_model_or_raise(model, "masked-lm")
    config = constructor(model.config)
    path = tmp_path / "model.onnx"
    names = export(tokenizer, model, config, config.default_onnx_opset, path)
    assert names == (["input_ids", "attention_mask", "token_type_ids"], ["logits"])
    model.config  # noqa: B018 - the very model is compared
    with pytest.raises(OutputMismatchError, match="no outputs \\['scores'\\]"):
        validate_model_outputs(config, tokenizer, model, path, ["scores"], 1e-4)
    with torch.no_grad():
        model.head.bias.add_(0.5)
    with pytest.raises(OutputMismatchError, match="'logits' differs from the model's by 0.5") as caught:
        validate_model_outputs(config, tokenizer, model, path, names[1], 1e-4)
    assert caught.value.difference == pytest.approx(0.5, abs=1e-4)
    assert "validate=False" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"there is no graph .*nobody.onnx; export"):
        validate_model_outputs(config, tokenizer, model, tmp_path / "nobody.onnx", names[1], 1e-4)


@pytest.mark.parametrize("name", ["modernbert", "deberta-v2"])
def test_local_and_disentangled_attention_hold_for_longer_texts(tmp_path: Path, name: str) -> None:
    model = EncoderModel.from_config(shallow(TINY_CONFIGS, name))
    randomise(model)
    report = export_onnx(model, tmp_path)
    assert report.path == tmp_path / "onnx" / "model.onnx"
    assert report.outputs == ("last_hidden_state",)
    assert report.num_cases == 5
    assert report.largest_difference is not None
    assert report.largest_difference < 1e-4


def test_the_graph_of_a_tagger_with_a_chain_gives_scores_and_tells_the_chain(tmp_path: Path) -> None:
    labels = ["O", "B-X", "I-X"]
    model = TokenClassificationModel.from_config(
        {**shallow(TINY_CONFIGS, "bert"), "use_crf": True, "id2label": dict(enumerate(labels)),
         "label2id": {label: number for number, label in enumerate(labels)}}
    )  # fmt: skip
    randomise(model)
    report = export_onnx(model, tmp_path / "tagger.onnx")
    inputs = inputs_of(2, 6)
    with torch.no_grad():
        scores = model.eval().head(model.backbone(**inputs))
    torch.testing.assert_close(run_graph(report.path, inputs)["logits"], scores, atol=1e-5, rtol=1e-5)
    told = {prop.key: prop.value for prop in onnx.load(report.path).metadata_props}
    assert json.loads(told["sparse_encoder.id2label"]) == {"0": "O", "1": "B-X", "2": "I-X"}
    chain = json.loads(told["sparse_encoder.crf"])
    assert model.head.crf is not None
    torch.testing.assert_close(torch.tensor(chain["transitions"]), model.head.crf.transitions.detach())
    assert (len(chain["start"]), len(chain["end"])) == (3, 3)
