"""Which device a served model is on, and what its workers are asked for; with providers that are not here."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from serving_helpers import TEXTS, exported_folder

from sparse_encoder import SparseEncoder
from sparse_encoder.encoding.pool import ProcessPool
from sparse_encoder.serving import OnnxSparseEncoder, workers
from sparse_encoder.serving.habits import Recipe
from sparse_encoder.serving.options import BackendOptions, choose_providers, device_number

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CUDA, CPU, OTHER = "CUDAExecutionProvider", "CPUExecutionProvider", "OpenVINOExecutionProvider"
PACKAGE = cast(ModuleType, SimpleNamespace(get_available_providers=lambda: [CUDA, OTHER, CPU]))


@pytest.mark.parametrize(
    ("options", "device", "expected", "number"),
    [
        ({}, "cuda:1", (CUDA, {"device_id": "1"}), 1),
        ({}, "cuda", CUDA, None),
        ({"provider": CUDA}, "cuda:1", (CUDA, {"device_id": "1"}), 1),
        ({"provider": CUDA, "provider_options": {"a": "b"}}, "cuda:2", (CUDA, {"a": "b", "device_id": "2"}), 2),
        ({"provider": CUDA, "provider_options": {"device_id": 1}}, "cuda:1", (CUDA, {"device_id": "1"}), 1),
        ({"provider": CUDA, "provider_options": {"device_id": 1}}, "cuda", (CUDA, {"device_id": 1}), 1),
        ({"provider": CUDA, "provider_options": {"device_id": 1}}, None, (CUDA, {"device_id": 1}), 1),
        ({"providers": [CUDA, CPU]}, "cuda:3", (CUDA, {"device_id": "3"}), 3),
        ({"providers": [(CUDA, {"a": "b"})]}, "cuda:3", (CUDA, {"a": "b", "device_id": "3"}), 3),
    ],
)
def test_the_number_of_a_gpu_goes_to_its_provider(
    options: dict[str, Any],
    device: str | None,
    expected: object,
    number: int | None,
) -> None:
    found = choose_providers(PACKAGE, BackendOptions(**options), device)
    assert found == [expected, CPU] and device_number(found) == number


@pytest.mark.parametrize(
    ("options", "device", "told"),
    [
        ({"provider": CUDA, "provider_options": {"device_id": 0}}, "cuda:1", "device is 'cuda:1' .* the device_id 0"),
        ({"providers": [(CUDA, {"device_id": "2"})]}, "cuda:1", "device is 'cuda:1' .* the device_id 2"),
        ({"provider": CUDA}, "cpu", "device is 'cpu' and model_kwargs ask for 'CUDAExecutionProvider'"),
        ({}, "cuda:x", "with a number or without as 'cuda:1', got 'cuda:x'"),
        ({"provider": CUDA, "provider_options": {"device_id": "x"}}, "cuda:1", "device_id in the options of .*'x'"),
    ],
)
def test_two_devices_are_refused(options: dict[str, Any], device: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        choose_providers(PACKAGE, BackendOptions(**options), device)


def test_a_model_on_one_gpu_is_not_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SparseEncoder(str(exported_folder()), backend="onnx", device="cpu")
    assert model.device == "cpu" and model.to("cpu:0") is model
    monkeypatch.setattr(OnnxSparseEncoder, "providers", [CUDA, CPU])
    assert model.device == "cuda" and model.to("cuda:0") is model
    model._device_number = 1
    assert model.device == "cuda:1" and model.to("cuda:1") is model
    assert workers.default_devices(model) == ["cuda:1"]
    assert model.encode(TEXTS[:2], device="cuda:1").shape[0] == 2
    for other in ("cuda", "cuda:0", "cuda:2", "cpu"):
        with pytest.raises(ValueError, match="device must be 'cuda:1', where this model was opened"):
            model.encode(TEXTS, device=other)
        with pytest.raises(ValueError, match="is on 'cuda:1' and stays there"):
            model.to(other)


@pytest.mark.parametrize("devices", [None, ["cpu", "cpu"]])
def test_workers_run_the_provider_that_the_model_runs(
    devices: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SparseEncoder(str(exported_folder()), backend="onnx")
    model.arguments = replace(model.arguments, model_kwargs={"provider": OTHER})
    monkeypatch.setattr(onnxruntime, "get_available_providers", PACKAGE.get_available_providers)
    started: list[Any] = []
    monkeypatch.setattr(ProcessPool, "__init__", lambda self, *arguments: started.extend(arguments))
    model.start_multi_process_pool(devices)
    names, serve, _ = started
    assert names == (devices or ["cpu"] * 4)
    opened: list[Any] = []
    monkeypatch.setattr(Recipe, "open", lambda self: opened.append(self.arguments))
    workers._prepare(names[0], **serve.keywords)
    assert opened[0].device is None and opened[0].model_kwargs["provider"] == OTHER
    assert opened[0].model_kwargs["export"] is False
    with pytest.raises(ValueError, match="device is 'cuda' and model_kwargs ask for 'OpenVINO"):
        model.start_multi_process_pool(["cuda"])
