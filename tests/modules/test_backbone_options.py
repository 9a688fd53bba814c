"""Options of the backbone that scripts give a SparseEncoder: they act, or have no effect and say so."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_helpers import tree_of
from hub_server import WritableHub, writable_hub
from loading_helpers import WEIGHTS, change
from model_helpers import write_masked_language_model

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import MaskedLanguageModel
from sparse_encoder.checkpoint import CheckpointError

NAME = "org/model"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_masked_language_model(tmp_path / "saved")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    with writable_hub(monkeypatch) as served:
        yield served


def backbone(name: Path | str, model_kwargs: dict[str, Any], device: str | None = None) -> MaskedLanguageModel:
    model: MaskedLanguageModel = SparseEncoder(str(name), model_kwargs=model_kwargs, device=device)[0].model
    return model


@pytest.mark.parametrize(
    "options",
    [
        {"use_safetensors": True, "weights_only": True, "variant": None, "subfolder": "", "key_mapping": {}},
        {"quantization_config": None, "from_tf": False, "force_download": True, "strict": True},
        {"device_map": "cpu"},
        {"device_map": "auto", "max_memory": {"cpu": "1GB"}},
        {"device_map": {"": torch.device("cpu")}},
        {"dtype": None, "torch_dtype": "auto"},
    ],
)
def test_options_that_ask_for_what_is_so_anyway(folder: Path, options: dict[str, Any]) -> None:
    plain, loaded = backbone(folder, {}), backbone(folder, options, device="cpu")
    assert all(torch.equal(each, plain.get_parameter(name).cpu()) for name, each in loaded.named_parameters())


def test_options_without_effect_are_told_of_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    backbone(folder, {"low_cpu_mem_usage": True, "add_pooling_layer": True})
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == ["['low_cpu_mem_usage', 'add_pooling_layer'] have no effect here and can be left out"]


def test_weights_that_do_not_fit_may_be_taken_leniently(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update(other=torch.ones(2)))
    with pytest.raises(CheckpointError, match="1 unexpected tensor"):
        backbone(folder, {})
    with pytest.warns(UserWarning, match="1 tensor left aside: other"):
        assert backbone(folder, {"strict": False}).load_report is not None
    change(folder, lambda tensors: tensors.update({"cls.predictions.bias": torch.ones(2)}))
    mapping = {"^other$": "bert.embeddings.position_ids"}
    with pytest.warns(UserWarning, match="1 tensor of another shape"):
        backbone(folder, {"ignore_mismatched_sizes": True, "key_mapping": mapping})


def test_a_device_and_a_device_map_must_agree(folder: Path) -> None:
    assert backbone(folder, {"device_map": "cpu"}).device.type == "cpu"
    with pytest.raises(ValueError, match="device is 'meta', and device_map has put the backbone on 'cpu'; give one"):
        backbone(folder, {"device_map": "cpu"}, device="meta")


def test_a_plan_that_needs_the_disk_is_refused(folder: Path, tmp_path: Path) -> None:
    options = {"device_map": "auto", "max_memory": {"cpu": 9_000}, "offload_folder": tmp_path / "disk"}
    with pytest.raises(ValueError, match="device_map spreads the backbone over several devices or the disk"):
        backbone(folder, options)


def test_a_variant_and_a_subfolder_of_a_repository(hub: WritableHub, folder: Path, tmp_path: Path) -> None:
    model = MaskedLanguageModel.from_pretrained(folder)
    with torch.no_grad():
        model.head.bias += 1
    model.save_pretrained(folder, variant="fp16")
    commit = hub.add(NAME, {f"sub/{name}": content for name, content in tree_of(folder).items()})
    encoder = SparseEncoder(NAME, cache_folder=str(tmp_path), model_kwargs={"variant": "fp16", "subfolder": "sub"})
    assert torch.equal(encoder[0].model.head.bias.cpu(), model.head.bias)
    assert encoder.model_card_data.base_model_revision == commit
    assert not [path for path in hub.paths() if path.endswith("/" + WEIGHTS)]
    hub.requests.clear()
    options = {"variant": "fp16", "subfolder": "sub", "force_download": True}
    SparseEncoder(NAME, cache_folder=str(tmp_path), model_kwargs=options)
    assert len([path for path in hub.paths() if path.endswith("model.fp16.safetensors")]) == 1
    assert not [path for path in hub.paths() if path.endswith("/" + WEIGHTS)]


def test_nothing_is_fetched_for_options_that_are_wrong(hub: WritableHub, folder: Path, tmp_path: Path) -> None:
    hub.add(NAME, tree_of(folder))
    for wrong in ({"dtype": "half"}, {"attn_implementation": "flash"}, {"device_map": "disk"}, {"typo": 1}):
        with pytest.raises(ValueError):
            SparseEncoder(NAME, cache_folder=str(tmp_path), model_kwargs=wrong)
    assert hub.requests == []
