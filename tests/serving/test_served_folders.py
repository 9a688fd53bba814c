"""What a server reads of a folder: modules, tokenizers and their options; it is as strict as the torch model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from model_helpers import write_masked_language_model

from sparse_encoder import SparseEncoder
from sparse_encoder.checkpoint import ConfigError
from sparse_encoder.module_entries import SPELLINGS
from sparse_encoder.serving.folder import read_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A SPLADE model; it has no graph, which nothing here needs."""
    (tmp_path / "plain").mkdir()
    model = SparseEncoder(str(write_masked_language_model(tmp_path / "plain")), device="cpu")
    model.save_pretrained(str(tmp_path / "model"), create_model_card=False)
    return tmp_path / "model"


def change(path: Path, position: int, values: dict[str, Any]) -> None:
    entries = json.loads(path.read_text())
    entries[position].update(values)
    path.write_text(json.dumps(entries))


@pytest.mark.parametrize(
    ("position", "values", "told"),
    [
        (0, {"type": "sentence_transformers.evil.Transformer"}, "unknown module type 'sentence_transformers.evil.Tra"),
        (0, {"type": "Transformer"}, "unknown module type 'Transformer'; there are"),
        (0, {"type": SPELLINGS["Pooling"][0]}, "the first module must read texts, a Pooling does not"),
        (1, {"type": SPELLINGS["MLMTransformer"][0]}, "a MLMTransformer must be the first module, it is number 1"),
        (1, {"type": SPELLINGS["Normalize"][0]}, "must have a Pooling or a SpladePooling"),
        (1, {"idx": 2}, "modules must be numbered 0, 1, 2, ... in order; number 1 is 2"),
        (1, {"kwargs": "all"}, "must be a list of names, got 'all'"),
        (1, {"code": "evil.py"}, "unknown keys ['code'] in module 1"),
        (1, {"path": 3}, "must be the name of a folder or empty, got 3"),
        (1, {"path": "../plain"}, "must be relative and stay in its folder"),
    ],
)
def test_modules_are_checked_as_the_torch_model_does(
    folder: Path, position: int, values: dict[str, Any], told: str
) -> None:
    assert read_folder(folder, {}).route("query").pooling is not None
    change(folder / "modules.json", position, values)
    for read in (lambda: read_folder(folder, {}), lambda: SparseEncoder(str(folder), device="cpu")):
        with pytest.raises(ConfigError) as caught:
            read()
        assert told in str(caught.value)


@pytest.mark.parametrize("spelling", [*SPELLINGS["Transformer"], *SPELLINGS["MLMTransformer"]])
def test_older_names_of_modules_are_served(folder: Path, spelling: str) -> None:
    change(folder / "modules.json", 0, {"type": spelling})
    assert read_folder(folder, {}).route(None).pooling is not None
