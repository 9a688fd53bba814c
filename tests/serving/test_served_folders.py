"""What a server reads of a folder: modules, tokenizers and their options; it is as strict as the torch model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from decoder_encoder_helpers import write_decoder
from model_helpers import write_masked_language_model

from sparse_encoder import SparseEncoder
from sparse_encoder.checkpoint import ConfigError
from sparse_encoder.module_entries import SPELLINGS
from sparse_encoder.serving.folder import read_folder
from sparse_encoder.serving.text_settings import TextSettings


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


@pytest.fixture
def decoder_folder(tmp_path: Path) -> Path:
    """A SPLADE model on a decoder, whose file asks for a begin token."""
    SparseEncoder(str(write_decoder(tmp_path / "base", bos=False)), device="cpu").save_pretrained(str(tmp_path / "own"))
    path = tmp_path / "own" / "sentence_bert_config.json"
    values = json.loads(path.read_text()) | {"processor_kwargs": {"add_bos_token": True, "use_fast": False}}
    path.write_text(json.dumps(values))
    return tmp_path / "own"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 1),
        ({"bos_token": "</s>"}, 2),
        ({"add_bos_token": True, "bos_token": "</s>"}, 2),
        ({"use_fast": True, "trust_remote_code": True, "bos_token": "</s>"}, 2),
    ],
)
def test_options_of_tokenizers_are_those_of_the_torch_model(
    decoder_folder: Path, options: dict[str, Any], expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    served = read_folder(decoder_folder, options).route(None)
    assert ("trust_remote_code is ignored" in caplog.text) == ("trust_remote_code" in options)
    ids = served.tokenizer.encode("rain")
    model = SparseEncoder(str(decoder_folder), device="cpu", processor_kwargs=options)
    assert ids == model.tokenizer.encode("rain") and ids[0] == expected


def test_unknown_options_and_other_numbers_of_logits_are_refused(decoder_folder: Path) -> None:
    path = decoder_folder / "sentence_bert_config.json"
    values = json.loads(path.read_text())
    assert values["processing_kwargs"]["text"] == {"logits_to_keep": 0}
    path.write_text(json.dumps({**values, "processing_kwargs": {"text": {"logits_to_keep": 1}}}))
    for read in (read_folder, lambda folder, options: SparseEncoder(str(folder), processor_kwargs=options)):
        with pytest.raises(ConfigError, match="needs processing_kwargs"):
            read(decoder_folder, {})
    path.write_text(json.dumps(values))
    for read in (read_folder, lambda folder, options: SparseEncoder(str(folder), processor_kwargs=options)):
        with pytest.raises(ValueError, match=r"unknown processor_kwargs \['padding'\]; choose from"):
            read(decoder_folder, {"padding": True})


def test_what_a_call_says_of_lengths_goes_before_the_modules_option() -> None:
    text = TextSettings(max_length=7, query_length=5, max_seq_length=9)
    assert [text.length_of(task, 3) for task in (None, "query")] == [3, 3]
    assert [text.length_of(task, None) for task in (None, "query")] == [7, 7]
    text = TextSettings(query_length=5)
    assert [text.length_of(task, None) for task in (None, "query", "document")] == [None, 5, None]
