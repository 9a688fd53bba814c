"""Exports that fail: what is refused, and that model and files are as they were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from export_helpers import tiny_encoder, tiny_language_model
from torch import Tensor, nn

from sparse_encoder import SparseEncoder
from sparse_encoder.checkpoint import SparseEncoderError
from sparse_encoder.export import ExportError, OnnxConfig, OutputMismatchError, PatchingSpec, export, export_onnx
from sparse_encoder.export.comparison import open_session
from sparse_encoder.export.graph import Case, Graph
from sparse_encoder.export.placing import save_model, staged_graphs
from sparse_encoder.export.state import overridden, traceable
from sparse_encoder.export.tracing import trace
from sparse_encoder.export.writing import WriteSettings, write_graphs

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

AXES = {0: "batch", 1: "sequence"}


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, values: Tensor) -> tuple[Tensor, ...]:
        return (values * self.scale,)


class Frozen(Doubling):
    def forward(self, values: Tensor) -> tuple[Tensor, ...]:
        return (values * self.scale + torch.arange(int(values.shape[1])),)


def graph(module: nn.Module, *, factor: float = 2.0) -> Graph:
    values = torch.arange(6.0).reshape(2, 3)
    return Graph(
        module=module,
        reference=lambda inputs: {"doubled": inputs["values"] * factor},
        inputs={"values": AXES},
        outputs={"doubled": AXES},
        example={"values": values},
        cases=[Case("a wide batch", {"values": torch.arange(10.0).reshape(1, 10)})],
    )


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparseEncoder]:
    yield tiny_encoder(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("opset", [11, 16, 26, 99])
def test_operators_that_torch_cannot_write_are_refused_before_anything_is_done(
    encoder: SparseEncoder, tmp_path: Path, opset: int
) -> None:
    with pytest.raises(ValueError, match=f"opset must be between 17 and 25, got {opset}; 20 is the default"):
        export_onnx(encoder, tmp_path / "out", opset=opset)
    assert list(tmp_path.iterdir()) == []


def test_the_version_that_was_written_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    first = trace(graph(Doubling()), 18)
    monkeypatch.setattr("sparse_encoder.export.tracing._translate", lambda *_: type("Program", (), {"model": first})())
    with pytest.raises(ValueError, match="opset 17 is not supported: torch wrote operators of version 18"):
        trace(graph(Doubling()), 17)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"opset": "20"}, TypeError, "opset must be an integer, got '20'"),
        ({"opset": True}, TypeError, "opset must be an integer"),
        ({"dtype": "bfloat16"}, ValueError, "dtype must be one of .*float32 holds its numbers exactly"),
        ({"dtype": "int8"}, ValueError, r"dtype must be one of \['float16', 'float32'\], got 'int8'$"),
        ({"external_data": 1}, TypeError, "external_data must be True or False"),
        ({"validate": None}, TypeError, "validate must be True or False"),
        ({"top_k": 0}, ValueError, "top_k must be between 1 and the number of terms, got 0"),
        ({"top_k": "3"}, TypeError, "top_k must be an integer or None, got '3'"),
        ({"top_k": 3.0}, TypeError, "top_k must be an integer or None, got 3.0"),
        ({"top_k": True}, TypeError, "top_k must be an integer or None, got True"),
        ({"top_k": 89}, ValueError, "top_k must be between 1 and the number of terms, 88, got 89"),
        ({"task": "masked-lm"}, ValueError, r"task must be one of \['sparse-embedding'\] for a SparseEncoder"),
    ],
)
def test_arguments_are_judged(
    encoder: SparseEncoder, tmp_path: Path, options: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        export_onnx(encoder, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_other_models_and_their_tasks_are_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="model must be one of .*'SparseEncoder'.*got a Linear"):
        export_onnx(nn.Linear(2, 3), tmp_path)
    with pytest.raises(ValueError, match="top_k is for sparse encoders"):
        export_onnx(tiny_language_model(), tmp_path, top_k=3)
    with pytest.raises(ValueError, match="task must be one of .*'masked-lm'.*for a MaskedLanguageModel"):
        export_onnx(tiny_language_model(), tmp_path, task="causal-lm")


def test_a_model_without_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no values here: it is offloaded"):
        export_onnx(tiny_language_model().to("meta"), tmp_path)


def test_an_older_name_is_taken_and_not_together_with_the_newer(encoder: SparseEncoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="opset must be between"):
        export_onnx(encoder, tmp_path, opset_version=11)
    with pytest.raises(TypeError, match="older name"):
        export_onnx(encoder, tmp_path, opset_version=20, opset=20)


def test_a_model_that_fails_is_as_it_was(
    encoder: SparseEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "onnx" / "model.onnx"
    target.parent.mkdir()
    target.write_bytes(b"what was there")
    handle = encoder[0].register_forward_pre_hook(lambda *_: None)
    attention = encoder[0].model.backbone.layers[0].attention
    attend = attention.attend
    encoder.train()
    encoder[1].eval()

    def fail(*_: object) -> None:
        assert attention.attend is not attend
        assert not encoder[0].training
        assert not encoder[0]._forward_pre_hooks
        raise RuntimeError("this cannot be traced")

    monkeypatch.setattr("sparse_encoder.export.sparse_graph._pool", fail)
    expected = pytest.raises(ExportError, match="torch.export cannot trace SparseGraph.*this cannot be traced")
    with torch.no_grad():
        with expected:
            export_onnx(encoder, tmp_path)
        assert not torch.is_grad_enabled()
    assert len(encoder[0]._forward_pre_hooks) == 1
    handle.remove()
    assert [encoder.training, encoder[0].training, encoder[1].training] == [True, True, False]
    assert attention.attend is attend
    assert target.read_bytes() == b"what was there"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["model.onnx", "onnx"]
    encoder.eval()


def test_a_graph_that_differs_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(
        OutputMismatchError, match=r"'doubled' differs.*by 9, more than 0.0001, at a wide batch, values \(1, 10\)"
    ) as caught:
        write_graphs({"a/model.onnx": graph(Doubling(), factor=3.0)}, tmp_path / "new" / "folder", WriteSettings())
    assert caught.value.difference == 9.0
    assert isinstance(caught.value, (ExportError, SparseEncoderError, RuntimeError))
    assert isinstance(caught.value, ValueError)
    assert list(tmp_path.iterdir()) == []


def test_an_axis_that_is_frozen_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="(?s)cannot trace Frozen.*specialized it to be a constant"):
        write_graphs({"model.onnx": graph(Frozen())}, tmp_path, WriteSettings())
    assert list(tmp_path.iterdir()) == []


def test_places_that_are_taken_by_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(IsADirectoryError, match="is to be a file"), staged_graphs(tmp_path) as stage:
        (stage / "model.onnx").write_bytes(b"new")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is to be a folder"), staged_graphs(tmp_path / "file"):
        pytest.fail("nothing can be written there")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "model.onnx"]


def test_weights_beyond_two_gigabytes_lie_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trace(graph(Doubling()), 20)
    monkeypatch.setattr("sparse_encoder.export.placing.LARGEST_BYTES", 1)
    with pytest.raises(ValueError, match="external_data must not be False for weights of 4 bytes"):
        save_model(model, tmp_path / "model.onnx", external_data=False)
    saved: list[object] = []
    monkeypatch.setattr("onnx_ir.save", lambda *_, external_data: saved.append(external_data))
    save_model(model, tmp_path / "model.onnx", external_data=None)
    monkeypatch.setattr("sparse_encoder.export.placing.LARGEST_BYTES", 2**31)
    save_model(model, tmp_path / "model.onnx", external_data=None)
    assert saved == ["model.onnx_data", None]


def test_values_of_a_configuration_are_put_back_after_an_error() -> None:
    model = tiny_language_model()
    model.hf_config["use_cache"] = True
    with pytest.raises(KeyError), overridden(model, {"use_cache": False, "other": 1}):
        assert model.hf_config["use_cache"] is False
        assert "other" not in model.hf_config
        raise KeyError
    assert model.hf_config["use_cache"] is True


def test_the_folder_is_as_it_was_when_the_graph_fails(
    encoder: SparseEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.save_pretrained(str(tmp_path / "model"))
    (tmp_path / "model" / "onnx").mkdir()
    (tmp_path / "model" / "onnx" / "model.onnx").write_bytes(b"of these weights")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    left = tmp_path / ".tmp-4194305-0a"  # of a process that is not there
    left.mkdir()

    def fail(*_: object) -> None:
        raise ExportError("no")

    monkeypatch.setattr("sparse_encoder.export.writing.trace", fail)
    with pytest.raises(ExportError, match="no"):
        encoder.export_onnx(tmp_path / "model")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not left.exists()


def test_a_graph_that_the_runtime_refuses_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x0a")
    with pytest.raises(ExportError, match="onnxruntime refuses the graph") as caught:
        open_session(tmp_path / "model.onnx")
    assert caught.value.path == str(tmp_path / "model.onnx")


def test_autocast_of_the_caller_does_not_reach_a_trace() -> None:
    model = tiny_language_model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with traceable(model):
            assert model(input_ids=torch.tensor([[5, 6]])).dtype == torch.float32
        assert torch.is_autocast_enabled("cpu")


class OwnConfig(OnnxConfig):
    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        return {"values": dict(AXES)}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        return {"doubled": dict(AXES)}

    def generate_dummy_inputs(self, *_: object, **__: object) -> dict[str, Tensor]:  # type: ignore[override]
        return {"values": torch.ones(2, 3)}


def test_patches_are_taken_out_when_a_model_of_anybodys_fails(tmp_path: Path) -> None:
    model = Doubling()
    first = Doubling.forward
    config = OwnConfig(None, patching_specs=[PatchingSpec(Doubling, "forward", lambda self, values: 1 / 0)])
    with pytest.raises((ExportError, ZeroDivisionError)):
        export("tokenizer", model, config, 20, tmp_path / "model.onnx")
    assert Doubling.forward is first
    assert list(tmp_path.iterdir()) == []
    assert export("tokenizer", model, OwnConfig(None), 20, tmp_path / "model.onnx") == (["values"], ["doubled"])


def test_inputs_that_a_model_does_not_take_are_named(tmp_path: Path) -> None:
    class Other(Doubling):
        def forward(self, numbers: Tensor) -> tuple[Tensor, ...]:
            return (numbers,)

    with pytest.raises(ValueError, match=r"inputs \['values'\] are no arguments of Other.forward.*numbers"):
        export("tokenizer", Other(), OwnConfig(None), 20, tmp_path / "model.onnx")
    with pytest.raises(TypeError, match=r"export needs \['model', 'output'\]"):
        export("tokenizer", config=OwnConfig(None))
    with pytest.raises(ValueError, match="device must be 'cpu'"):
        export("tokenizer", Doubling(), OwnConfig(None), 20, tmp_path / "m.onnx", device="cuda")
