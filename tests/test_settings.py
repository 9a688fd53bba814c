from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from sparse_encoder.checkpoint import ConfigError
from sparse_encoder.settings import ModelSettings, check_requirements, read_settings, rewrite_settings, write_settings

FULL = ModelSettings(
    prompts={"query": "q: ", "document": ""},
    default_prompt_name="query",
    similarity_fn_name="cosine",
    max_active_dims=7,
)


def put(folder: Path, **values: object) -> Path:
    (folder / "config_sentence_transformers.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("settings", [ModelSettings(), FULL])
def test_written_settings_are_read_again(tmp_path: Path, settings: ModelSettings) -> None:
    write_settings(tmp_path, settings)
    assert read_settings(tmp_path) == settings


def test_the_file_has_the_peers_keys(tmp_path: Path) -> None:
    write_settings(tmp_path, ModelSettings(prompts={"query": "", "document": ""}))
    values = json.loads((tmp_path / "config_sentence_transformers.json").read_text())
    assert set(values.pop("__version__")) == {"pytorch", "sparse_encoder"}
    assert values == {
        "default_prompt_name": None,
        "model_type": "SparseEncoder",
        "prompts": {"query": "", "document": ""},
        "similarity_fn_name": None,
    }


def test_a_folder_without_settings_or_type_is_a_dense_model(tmp_path: Path) -> None:
    assert read_settings(tmp_path).model_type == "SentenceTransformer"
    assert read_settings(put(tmp_path, prompts={"query": "q"})).model_type == "SentenceTransformer"


def test_unknown_keys_are_no_error(tmp_path: Path) -> None:
    assert read_settings(put(tmp_path, model_type="SparseEncoder", truncate_dim=None, other=3)) == ModelSettings()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"prompts": ["q"]}, "prompts"),
        ({"prompts": {"query": 3}}, "prompts"),
        ({"similarity_fn_name": "angle"}, "similarity_fn_name"),
        ({"max_active_dims": 0}, "max_active_dims"),
        ({"max_active_dims": True}, "max_active_dims"),
        ({"max_active_dims": "8"}, "max_active_dims"),
        ({"default_prompt_name": 1}, "default_prompt_name"),
        ({"requirements": ["torch"]}, "requirements"),
        ({"__version__": "6.2"}, "__version__"),
    ],
)
def test_wrong_values_are_refused_by_name(tmp_path: Path, values: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError, match=f"field '{field}'"):
        read_settings(put(tmp_path, **values))


@pytest.mark.parametrize(
    "requirements",
    [
        {},
        {"torch": ">=2"},
        {"pytorch": ">=2.0,<99"},
        {"python": ">=3.8"},
        {"numpy": {"specifier": ">=1", "reason": "arrays"}},
        {"transformers": ">=999", "sentence_transformers": ">=999"},  # what this library stands in for
    ],
)
def test_requirements_that_are_met(requirements: dict[str, object]) -> None:
    assert check_requirements(requirements) is None


@pytest.mark.parametrize(
    ("requirements", "message"),
    [
        ({"pytorch": ">=99"}, r"requires pytorch>=99, and 2\..* is installed. Try `pip install 'torch>=99'`"),
        ({"python": "<3"}, "requires python<3"),
        ({"no-such-package": ">=1"}, "requires no-such-package>=1, and none is installed"),
        ({"numpy": {"specifier": "<1", "reason": "old arrays"}}, r"requires numpy<1 \(old arrays\)"),
    ],
)
def test_requirements_that_are_not_met(tmp_path: Path, requirements: dict[str, object], message: str) -> None:
    with pytest.raises(ImportError, match=message):
        read_settings(put(tmp_path, model_type="SparseEncoder", requirements=requirements))


def test_requirements_that_cannot_be_read_only_warn(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_requirements({"numpy": "about 2", "torch": {"reason": "no specifier"}})
    assert "'numpy': 'about 2' cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("version", "warns"),
    [({"sentence_transformers": "6.2.9"}, False), ({"sentence_transformers": "7.0"}, True), ({}, False),
     ({"sparse_encoder": "99.0"}, True), ({"sparse_encoder": "what"}, True)],
)  # fmt: skip
def test_newer_writers_only_warn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, version: dict[str, str], warns: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        read_settings(put(tmp_path, model_type="SparseEncoder", __version__=version))
    assert ("was written by" in caplog.text) == warns


def test_settings_are_rewritten_in_the_place_of_others(tmp_path: Path) -> None:
    put(
        tmp_path,
        model_type="SparseEncoder",
        max_active_dims=3,
        default_prompt_name="query",
        requirements={"torch": ">1"},
    )
    rewrite_settings(tmp_path, ModelSettings(similarity_fn_name="cosine"))
    assert json.loads((tmp_path / "config_sentence_transformers.json").read_text()) == {
        "default_prompt_name": None,
        "model_type": "SparseEncoder",
        "prompts": {},
        "requirements": {"torch": ">1"},
        "similarity_fn_name": "cosine",
    }
    put(tmp_path, prompts={})
    rewrite_settings(tmp_path, ModelSettings())
    assert read_settings(tmp_path).model_type == "SentenceTransformer"
