"""Ids to tokens and texts, sides of padding, begin and end tokens: as transformers, on real files and a Llama's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixture_files import fixture_path
from text_helpers import BERT, LLAMA, awkward_texts, bert_tokenizer, llama_tokenizer

from sparse_encoder.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

GPT2 = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
ROBERTA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
NAMED = {"bert_base_uncased": BERT, "roberta_base": ROBERTA, "gpt2": GPT2}


def assert_same(ours: Tokenizer, theirs: Any, *, seed: int) -> None:  # noqa: ANN401 - a peer's class
    """Compare what both make of ids of texts, and of ids in any order, where characters are cut in pieces."""
    draw = np.random.default_rng(seed)
    rows = [ours.encode(text) for text in awkward_texts(40, seed)]
    rows += [draw.integers(0, len(ours), size).tolist() for size in range(12)]
    for skip in (False, True):
        assert ours.batch_decode(rows, skip_special_tokens=skip) == theirs.batch_decode(rows, skip_special_tokens=skip)
        for row in rows:
            tokens = ours.convert_ids_to_tokens(row, skip_special_tokens=skip)
            assert tokens == theirs.convert_ids_to_tokens(row, skip_special_tokens=skip)
            assert ours.convert_tokens_to_string(tokens) == theirs.convert_tokens_to_string(tokens)
    tokens = theirs.convert_ids_to_tokens(rows[0])
    assert ours.convert_tokens_to_ids(tokens) == theirs.convert_tokens_to_ids(tokens)
    square = draw.integers(0, len(ours), (3, 7))
    for given in (square, torch.from_numpy(square), square.tolist(), square[0], torch.from_numpy(square)[0], 5):
        assert ours.decode(given) == theirs.decode(given)
        assert ours.batch_decode(given) == theirs.batch_decode(given)
    assert ours.decode([]) == theirs.decode([])


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_llama_with_bytes(side: str, tmp_path: Path) -> None:
    ours = llama_tokenizer()
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert_same(ours, theirs, seed=0)
    ours.pad_token = ours.eos_token
    theirs.pad_token = theirs.eos_token
    texts = ["spare a", "", "é spare spare", "a"]
    mine = ours(texts, padding=True, padding_side=side, return_tensors="np")
    other = theirs(texts, padding=True, padding_side=side, return_tensors="np")
    for name in ("input_ids", "attention_mask"):
        assert (mine[name] == other[name]).all()


@pytest.mark.parametrize("flags", [{"add_bos_token": False}, {"add_eos_token": True, "add_bos_token": True}])
def test_begin_and_end_tokens_are_switched_and_saved(flags: dict[str, bool], tmp_path: Path) -> None:
    ours = llama_tokenizer()
    ours.save_pretrained(tmp_path / "before")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "before", **flags)
    for name, value in flags.items():
        setattr(ours, name, value)
    ours.save_pretrained(tmp_path / "after")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "after")
    for texts in (["spare a"], ["a", "spare"]):
        wanted = theirs(*texts)["input_ids"]
        assert ours(*texts)["input_ids"] == again(*texts)["input_ids"] == wanted


@pytest.mark.parametrize("flags", [{}, {"add_bos_token": True}])
def test_vocabulary_files_with_flags(flags: dict[str, bool], tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3, "Ġ": 4}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", **flags}))
    theirs = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.from_pretrained(tmp_path)
    for text in ("ab a", "", "ba<|endoftext|>"):
        assert ours.encode(text) == theirs.encode(text)
    assert ours.decode([3, 4, 1]) == theirs.decode([3, 4, 1]) == "ab a"


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("asked", [None, True, False])
def test_cleaning_up(says: bool, asked: bool | None, tmp_path: Path) -> None:
    saved = bert_tokenizer()
    saved.backend.decoder = None
    saved.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "clean_up_tokenization_spaces": says}))
    ours, theirs = Tokenizer.from_pretrained(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = ours.encode("a . b.", add_special_tokens=False)
    found = ours.decode(ids, clean_up_tokenization_spaces=asked)
    assert found == theirs.decode(ids, clean_up_tokenization_spaces=asked)
    assert (found == "a. b.") == (says if asked is None else asked)


def test_a_named_special_token_that_is_a_word_of_the_vocabulary(tmp_path: Path) -> None:
    saved = llama_tokenizer()
    content = json.loads(saved.backend.to_str())
    content["added_tokens"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(LLAMA))
    ours = Tokenizer.from_pretrained(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    ids = ours.encode("a</s>a")
    assert ids == theirs.encode("a</s>a")
    assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.fixture
@pytest.mark.parametrize("name", NAMED)
def test_real_tokenizers(name: str, tmp_path: Path) -> None:
    shutil.copy(fixture_path("llm-detector") / f"{name}_tokenizer.json", tmp_path / "tokenizer.json")
    file = str(tmp_path / "tokenizer.json")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=file, **NAMED[name])
    assert_same(Tokenizer.from_pretrained(tmp_path), theirs, seed=1)
