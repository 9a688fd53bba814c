"""Served models on their way to the hub."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from model_helpers import write_masked_language_model
from serving_helpers import copy_of, exported_folder, traced_before

from sparse_encoder import SparseEncoder, export_dynamic_quantized_onnx_model
from sparse_encoder.checkpoint.hub_push import HubTarget
from sparse_encoder.serving import OnnxSparseEncoder
from sparse_encoder.serving.publishing import push_graphs

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


class Hub:
    """What a client of the hub is asked to do."""

    def __init__(self, *, has_card: bool = False) -> None:
        self.has_card = has_card
        self.files: dict[str, bytes] = {}
        self.commit: dict[str, Any] = {}
        self.made: dict[str, Any] | None = None

    def create_repo(self, repo_id: str, **options: object) -> SimpleNamespace:
        self.made = options
        return SimpleNamespace(repo_id=f"me/{repo_id}")

    def file_exists(self, *_: object, **__: object) -> bool:
        return self.has_card

    def list_repo_files(self, *_: object, **__: object) -> list[str]:
        return []

    def create_commit(self, _: str, operations: list[Any], **options: object) -> SimpleNamespace:
        self.files = {each.path_in_repo: Path(each.path_or_fileobj).read_bytes() for each in operations}
        self.commit = options
        return SimpleNamespace(commit_url="commit", pr_url="request")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda token: found)
    return found


def opened(folder: Path, **options: object) -> OnnxSparseEncoder:
    return SparseEncoder(str(folder), backend="onnx", model_kwargs=options)


def test_a_served_model_is_uploaded_with_its_graph_and_settings(hub: Hub, tmp_path: Path) -> None:
    model = opened(copy_of(exported_folder(), tmp_path / "model"))
    model.prompts["title"] = "stone "
    assert model.push_to_hub("name", private=True) == "commit"
    assert {"onnx/model.onnx", "modules.json", "tokenizer.json", "model.safetensors", "README.md"} <= set(hub.files)
    assert hub.files["onnx/model.onnx"] == (model.folder / "onnx" / "model.onnx").read_bytes()
    assert b'SparseEncoder("me/name"' in hub.files["README.md"]
    assert b'"title": "stone "' in hub.files["config_sentence_transformers.json"]
    assert hub.commit["commit_message"] == "Add new SparseEncoder model with an onnx backend"
    assert hub.made == {"private": True, "exist_ok": False}


def test_a_graph_that_was_made_when_the_model_was_opened_is_proposed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported_folder()  # once, truly
    monkeypatch.setattr("sparse_encoder.export.writing.trace", traced_before)  # of the same weights
    model = opened(write_masked_language_model(tmp_path / "model"))
    hub.has_card = True
    assert model.push_to_hub("name", create_pr=True, commit_message="A graph") == "request"
    assert "onnx/model.onnx" in hub.files and "README.md" not in hub.files
    assert hub.commit["create_pr"] and hub.commit["commit_message"] == "A graph"
    assert (
        'SparseEncoder("me/name", revision=f"refs/pr/{pr_number}", backend="onnx")' in hub.commit["commit_description"]
    )


def test_a_folder_is_uploaded_in_its_place_and_what_is_torchs_is_refused(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    model = opened(exported_folder())
    model.save_to_hub("name", local_model_path=str(tmp_path / "other"))
    assert hub.files == {"config.json": b"{}"}
    hub.made = None
    for wrong, told in (({"train_datasets": ["a"]}, "train_datasets"), ({"safe_serialization": False}, "safe_serial")):
        with pytest.raises(ValueError, match=f"{told}.* is for backend='torch'"):
            model.push_to_hub("name", **wrong)
    with pytest.raises(ValueError, match="local_model_path must be a folder with a saved model, got .*is no folder"):
        model.push_to_hub("name", local_model_path=str(tmp_path / "nowhere"))
    assert hub.made is None  # no repository


def test_tokens_are_not_in_errors_of_graphs_on_their_way(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Hub, *_: object, **__: object) -> SimpleNamespace:
        raise OSError("no way to https://user:hidden@host")

    monkeypatch.setattr(Hub, "create_commit", fail)
    folder = exported_folder()
    with pytest.raises(ConnectionError, match="no way to") as caught:
        push_graphs(folder, [folder / "onnx" / "model.onnx"], HubTarget(repo_id="name", token="hidden"))
    assert "hidden" not in str(caught.value)
    hub.made = None
    with pytest.raises(FileNotFoundError):
        push_graphs(folder, [folder / "onnx" / "nowhere.onnx"], HubTarget(repo_id="name"))
    assert hub.made is None


@pytest.mark.parametrize("create_pr", [False, True])
def test_a_graph_in_8_bits_is_uploaded_alone(hub: Hub, create_pr: bool) -> None:
    report = export_dynamic_quantized_onnx_model(
        opened(exported_folder()), "avx2", "name", push_to_hub=True, create_pr=create_pr, file_suffix="small"
    )
    assert set(hub.files) == {"onnx/model_small.onnx"} == {report.file_name}
    assert report.paths == () and len(hub.files[report.file_name]) == report.bytes_after
    assert hub.commit["commit_message"] == "Add exported onnx model 'model_small.onnx'"
    told = hub.commit["commit_description"]
    assert 'model_kwargs={"file_name": "onnx/model_small.onnx"}' in told if create_pr else told is None
