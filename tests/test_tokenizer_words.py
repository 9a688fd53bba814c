"""Lists of words for tokenizers that tell words by the blank before them."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
from fixture_files import fixture_path
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from sparse_encoder.tokenizer import Tokenizer, TokenizerConfig

WORDS = ["Hello", "world", "EU-Kommission", "don't", "Zoë"]


def byte_level(*, add_prefix_space: bool = False) -> Tokenizer:
    """A tokenizer whose tokens are bytes."""
    vocabulary = {sign: number for number, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Backend(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    backend.post_processor = processors.ByteLevel(trim_offsets=True, add_prefix_space=add_prefix_space)
    return Tokenizer(backend, TokenizerConfig())


def test_words_have_a_blank_before_them_and_texts_have_not() -> None:
    tokenizer = byte_level()
    before = tokenizer.backend.to_str()
    words = tokenizer(["ab", "c"], is_split_into_words=True, return_offsets_mapping=True)
    assert words.tokens() == ["\u0120", "a", "b", "\u0120", "c"]
    assert words.word_ids() == [0, 0, 0, 1, 1]
    assert [words["offset_mapping"][place] for place in (1, 2, 4)] == [(0, 1), (1, 2), (0, 1)]
    assert tokenizer("ab c").tokens() == ["a", "b", "\u0120", "c"]
    assert tokenizer.backend.to_str() == before
    with_option = byte_level(add_prefix_space=True)
    assert with_option(["ab", "c"], is_split_into_words=True).tokens() == words.tokens()


def test_a_saved_tokenizer_is_as_it_came(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer(["ab", "c"], is_split_into_words=True)
    tokenizer.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "tokenizer.json").read_text())
    assert written["normalizer"] is None
    assert written["pre_tokenizer"]["add_prefix_space"] is False
    assert written["post_processor"]["add_prefix_space"] is False
    assert Tokenizer.from_pretrained(tmp_path).fingerprint == byte_level().fingerprint


def test_threads_with_words_and_with_texts_do_not_meet() -> None:
    tokenizer = byte_level()
    wrong: list[object] = []

    def run(words: bool) -> None:
        for _ in range(200):
            found = tokenizer(["ab", "c"], is_split_into_words=True) if words else tokenizer("ab c")
            if len(found["input_ids"]) != (5 if words else 4):
                wrong.append(found)

    threads = [threading.Thread(target=run, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.fixture
@pytest.mark.parametrize("name", ["roberta_base", "gpt2", "openai_gpt_oss_20b", "bert_base_uncased"])
def test_words_have_the_tokens_of_the_text(name: str, tmp_path: Path) -> None:
    shutil.copy(fixture_path("llm-detector") / f"{name}_tokenizer.json", tmp_path / "tokenizer.json")
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    found = tokenizer(WORDS, is_split_into_words=True, return_offsets_mapping=True)
    assert found["input_ids"] == tokenizer(" " + " ".join(WORDS))["input_ids"]
    pieces: list[list[str]] = [[] for _ in WORDS]
    for word, (begin, end) in zip(found.word_ids(), found["offset_mapping"], strict=True):
        if word is not None:
            pieces[word].append(WORDS[word][begin:end])
    assert ["".join(each) for each in pieces] == WORDS  # offsets count from the first letter, not from the blank
    assert tokenizer.is_fast


@pytest.mark.fixture
def test_the_tokens_of_transformers_with_the_option(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shutil.copy(fixture_path("llm-detector") / "roberta_base_tokenizer.json", tmp_path / "tokenizer.json")
    given = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    given["pre_tokenizer"]["add_prefix_space"] = given["post_processor"]["add_prefix_space"] = True
    peer = transformers.PreTrainedTokenizerFast(tokenizer_object=Backend.from_str(json.dumps(given)))
    wanted = peer(WORDS, is_split_into_words=True, return_offsets_mapping=True)
    found = Tokenizer.from_pretrained(tmp_path)(WORDS, is_split_into_words=True, return_offsets_mapping=True)
    assert found["input_ids"] == wanted["input_ids"]
    assert found["offset_mapping"] == wanted["offset_mapping"]
    assert found.word_ids() == wanted.word_ids()
