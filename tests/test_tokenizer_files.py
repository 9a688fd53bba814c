from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from decoder_helpers import DECODER_CONFIGS
from text_helpers import BERT, CLS, MASK, PAD, SEP, SPARSE, UNK, WORDS, A, B, bert_backend, bert_tokenizer, write_folder
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors

from sparse_encoder.checkpoint import TokenizerError
from sparse_encoder.generation import CausalLanguageModel
from sparse_encoder.tokenizer import UNLIMITED, Tokenizer, TokenizerConfig

Content = dict[str, Any]


def bert_content() -> Content:
    content: Content = json.loads(bert_backend().to_str())
    return content


def roberta_backend(prefix: bool = False) -> Backend:
    """A byte-level tokenizer that knows a, b, ab and Ġab, in the way of RoBERTa."""
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5, "Ġ": 6, "ab": 7, "Ġab": 8, "<mask>": 9}
    backend = Backend(models.BPE(vocabulary, [("a", "b"), ("Ġ", "ab")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=prefix)
    backend.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return backend


def write_bpe(folder: Path, names: tuple[str, str] = ("vocab.json", "merges.txt")) -> Path:
    model = json.loads(roberta_backend().to_str())["model"]
    (folder / names[0]).write_text(json.dumps(model["vocab"]), encoding="utf-8")
    (folder / names[1]).write_text("#version: 0.2\na b\nĠ ab\n\n", encoding="utf-8")
    return folder


class TestTokenizerJson:
    def test_is_read_as_it_is(self, tmp_path: Path) -> None:
        tokenizer = Tokenizer.from_pretrained(write_folder(tmp_path, bert_content()))
        assert tokenizer.encode_batch(["Sparse a"]).input_ids == [[CLS, SPARSE, A, SEP]]
        assert dict(tokenizer.config.special_tokens) == BERT
        assert tokenizer.has_token_type_ids

    def test_truncation_and_padding_in_it_are_dropped(self, tmp_path: Path) -> None:
        content = bert_content()
        content["truncation"] = {"max_length": 3, "stride": 9, "strategy": "LongestFirst", "direction": "Right"}
        content["padding"] = {
            "strategy": {"Fixed": 9},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        }
        tokenizer = Tokenizer.from_pretrained(write_folder(tmp_path, content))
        assert tokenizer.encode_batch(["a b", "b"]).lengths == [4, 3]
        assert tokenizer.fingerprint == Tokenizer(bert_backend(), TokenizerConfig(special_tokens=BERT)).fingerprint

    def test_may_lack_the_type_of_the_model(self, tmp_path: Path) -> None:
        content = bert_content()
        del content["model"]["type"]
        tokenizer = Tokenizer.from_pretrained(write_folder(tmp_path, content))
        assert tokenizer.encode_batch(["Sparse a"]).input_ids == [[CLS, SPARSE, A, SEP]]
        assert tokenizer.fingerprint == bert_tokenizer().fingerprint

    def test_max_length_is_the_smaller(self, tmp_path: Path) -> None:
        write_folder(tmp_path, bert_content(), config={"model_max_length": 512})
        assert Tokenizer.from_pretrained(tmp_path, max_length=256).model_max_length == 256
        assert Tokenizer.from_pretrained(str(tmp_path), max_length=1024).model_max_length == 512

    @pytest.mark.parametrize("limit", [1e30, 10**30, 1000000000000000019884624838656, None])
    def test_no_length_is_unlimited(self, tmp_path: Path, limit: float | None) -> None:
        write_folder(tmp_path, bert_content(), config={"model_max_length": limit})
        assert Tokenizer.from_pretrained(tmp_path).model_max_length == UNLIMITED

    def test_too_long_words_are_a_thousand_characters(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        content = bert_content()
        content["model"]["max_input_chars_per_word"] = 10**9
        tokenizer = Tokenizer.from_pretrained(write_folder(tmp_path, content))
        assert "max_input_chars_per_word is 1000000000 and was lowered to 1000" in caplog.text
        assert tokenizer.encode_batch(["a" * 1000, "a" * 1001]).lengths == [1002, 3]

    def test_a_few_unused_ids_count(self, tmp_path: Path) -> None:
        content = bert_content()
        content["model"]["vocab"]["late"] = 40
        tokenizer = Tokenizer.from_pretrained(write_folder(tmp_path, content))
        assert tokenizer.vocab_size == 41
        assert len(tokenizer.get_vocab()) == 16


def _set(*path: str, value: object) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


def _split(pattern: str) -> dict[str, object]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


WRONG: dict[str, tuple[Callable[[Content], None], str]] = {
    "no model": (_set("model", value=None), "with a model"),
    "vocabulary of another type": (_set("model", "vocab", value=3), "object of ids"),
    "double id": (_set("model", "vocab", "new", value=5), "'sparse' and 'new' have the same id 5"),
    "negative id": (_set("model", "vocab", "new", value=-1), "'new' has -1"),
    "fractional id": (_set("model", "vocab", "new", value=15.0), "'new' has 15.0"),
    "boolean id": (_set("model", "vocab", "new", value=True), "'new' has True"),
    "id past all bounds": (_set("model", "vocab", "new", value=4_000_000_000), "ids up to 4000000000, of 'new'"),
    "unknown token unknown": (_set("model", "unk_token", value="<unk>"), "lacks '<unk>'"),
    "unknown model": (_set("model", "type", value="Word"), "is no tokenizer"),
    "template with a token it does not define": (_set("post_processor", "special_tokens", value={}), "no tokenizer"),
    "template with an id that no token has": (
        _set("post_processor", "special_tokens", "[CLS]", "ids", value=[99]),
        "puts ids around a text that no token has, \\[3, 99\\]",
    ),
    "added tokens of another type": (_set("added_tokens", value=["a"]), "must be a list of tokens"),
    "damaged character map": (
        _set("normalizer", value={"type": "Precompiled", "precompiled_charsmap": "/w=="}),
        "no tokenizer",
    ),
    "no pattern": (_set("pre_tokenizer", value=_split("((")), "pattern '\\(\\(' cannot be used"),
    "pattern that runs away": (_set("pre_tokenizer", value=_split("(x+x+)+y")), "cannot be used|too slow"),
    "pattern that runs away on letters": (
        _set("pre_tokenizer", value=_split("(\\w+\\d*)+y")),
        "cannot be used|too slow",
    ),
    "replacement that runs away": (
        _set("normalizer", value={"type": "Replace", "pattern": {"Regex": "(a|a)*b"}, "content": ""}),
        "cannot be used|too slow",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_tokenizer_json_that_is_wrong_is_refused(name: str, tmp_path: Path) -> None:
    change, message = WRONG[name]
    content = bert_content()
    change(content)
    with pytest.raises(TokenizerError, match=message) as caught:
        Tokenizer.from_pretrained(write_folder(tmp_path, content))
    assert caught.value.path == str(tmp_path / "tokenizer.json")


def test_a_panic_of_the_library_is_an_error_of_ours(tmp_path: Path) -> None:
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"]}
    with pytest.raises(TokenizerError, match="is no tokenizer") as caught:
        Tokenizer.from_pretrained(write_folder(tmp_path, {**bert_content(), "model": model, "added_tokens": []}))
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, "\ufeff{}"])
def test_what_is_no_strict_json_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_text_that_the_tokenizer_cannot_encode_is_an_error_of_ours() -> None:
    backend = Backend(models.WordLevel({"a": 0}, unk_token="[UNK]"))
    with pytest.raises(TokenizerError, match="a text cannot be encoded"):
        Tokenizer(backend, TokenizerConfig()).encode_batch(["b"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pad_token": "[P]"}, "pad_token.*lacks '\\[P\\]'"),
        ({"mask_token": {"content": "<mask>", "lstrip": True}}, "mask_token.*lacks '<mask>'"),
        ({"model_max_length": -5}, "at least 1"),
        ({"model_max_length": "512"}, "must be a number"),
        ({"model_max_length": True}, "must be a number"),
        ({"padding_side": "up"}, "unknown side"),
        ({"model_input_names": 5}, "tokenizer_config"),
        ({"additional_special_tokens": 5}, "tokenizer_config"),
        ({"added_tokens_decoder": {"x": {"content": "new"}}}, "added tokens"),
        ({"added_tokens_decoder": {"99": {"content": "new"}}}, "'new' has the id 15, its list says 99"),
        ({"added_tokens_decoder": ["new"]}, "added tokens"),
        ([], "must hold a JSON object"),
    ],
)
def test_a_config_that_is_wrong_is_refused(config: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_pretrained(write_folder(tmp_path, bert_content(), config=config))


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"vocab\.txt, or vocab\.json and merges\.txt"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_unigram_tokenizer(tmp_path: Path) -> None:
    scores = [("<pad>", 0.0), ("<unk>", 0.0), ("▁a", -1.0), ("▁", -2.0), ("b", -2.0), ("ab", -1.5)]
    backend = Backend(models.Unigram(scores, unk_id=1))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.add_special_tokens(["<pad>", "<unk>"])
    tokenizer = Tokenizer.from_pretrained(write_folder(tmp_path, json.loads(backend.to_str())))
    assert tokenizer.encode_batch(["a bab x<pad>"]).input_ids == [[2, 3, 4, 5, 3, 1, 0]]
    assert tokenizer.vocab_size == 6
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (0, 1)


class TestSpecialTokens:
    def test_of_transformers_5(self, tmp_path: Path) -> None:
        config = {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", **BERT, "model_max_length": 77}
        tokenizer = Tokenizer.from_pretrained(write_folder(tmp_path, bert_content(), config=config))
        assert (tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.model_max_length) == (PAD, MASK, 77)

    def test_of_transformers_4(self, tmp_path: Path) -> None:
        token = {"__type": "AddedToken", "content": "[MASK]", "lstrip": True, "normalized": False}
        decoder = {"4": {"content": "[MASK]", "special": True}, "15": {"content": "[X]", "special": True}}
        config = {"mask_token": token, "added_tokens_decoder": decoder, "additional_special_tokens": ["[X]"]}
        tokenizer = Tokenizer.from_pretrained(write_folder(tmp_path, bert_content(), config=config))
        assert tokenizer.mask_token_id == MASK
        assert tokenizer.vocab_size == 16
        assert tokenizer.encode_batch(["a[X]b"]).input_ids == [[CLS, A, 15, B, SEP]]
        assert tokenizer.all_special_ids == [MASK, 15]

    def test_of_special_tokens_map(self, tmp_path: Path) -> None:
        tokens = {"pad_token": "[MASK]", "cls_token": {"content": "[CLS]"}}
        write_folder(tmp_path, bert_content(), special_tokens_map=tokens, config={"pad_token": "[PAD]"})
        assert dict(Tokenizer.from_pretrained(tmp_path).config.special_tokens) == {
            "pad_token": "[PAD]",
            "cls_token": "[CLS]",
        }

    def test_of_the_tokenizer_itself(self, tmp_path: Path) -> None:
        tokenizer = Tokenizer.from_pretrained(write_folder(tmp_path, json.loads(roberta_backend().to_str())))
        assert (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id) == (1, 0, 2)
        assert not tokenizer.has_token_type_ids

    def test_added_tokens_of_an_old_folder(self, tmp_path: Path) -> None:
        write_folder(tmp_path, bert_content(), added_tokens={"[Y]": 16, "[X]": 15})
        assert Tokenizer.from_pretrained(tmp_path).encode_batch(["[Y][X]"]).input_ids == [[CLS, 16, 15, SEP]]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, True),
        ({"tokenizer_class": "BertTokenizerFast"}, True),
        ({"tokenizer_class": "DistilBertTokenizer"}, False),
        ({"tokenizer_class": "LlamaTokenizer"}, False),
        ({"tokenizer_class": "Qwen2Tokenizer"}, False),
        ({"tokenizer_class": "T5TokenizerFast"}, False),
        *[({"tokenizer_class": f"{name}Tokenizer"}, False) for name in ("Cohere", "GPTNeoX", "MBart50", "XGLM")],
        *[({"tokenizer_class": f"{name}Tokenizer"}, True) for name in ("Albert", "BigBird", "ConvBert", "Funnel")],
        ({"tokenizer_class": "DistilBertTokenizer", "model_input_names": ["input_ids", "token_type_ids"]}, True),
        ({"tokenizer_class": "BertTokenizer", "model_input_names": ["input_ids", "attention_mask"]}, False),
    ],
)
def test_who_says_whether_there_are_token_types(config: dict[str, object], expected: bool, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(write_folder(tmp_path, bert_content(), config=config))
    assert tokenizer.has_token_type_ids is expected
    assert ("token_type_ids" in tokenizer("a")) is expected


def test_a_template_that_adds_no_token_gives_no_types(tmp_path: Path) -> None:
    """As transformers writes it into the file of a decoder's tokenizer."""
    of_texts = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    content = bert_content()
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": of_texts[:1],
        "pair": of_texts,
        "special_tokens": {},
    }
    tokenizer = Tokenizer.from_pretrained(write_folder(tmp_path, content))
    assert list(tokenizer("a")) == ["input_ids", "attention_mask"]


@pytest.mark.parametrize("begins_second", [True, False])
@pytest.mark.parametrize("name", ["TokenizersBackend", "PreTrainedTokenizerFast", None])
def test_a_decoders_template_that_begins_texts_gives_no_types(
    begins_second: bool, name: str | None, tmp_path: Path
) -> None:
    """As transformers 5 saves it, with a class that says nothing; `generate` would refuse types."""
    first, second = ([{"SpecialToken": {"id": "[CLS]", "type_id": kind}}] for kind in (0, 1))
    of_texts = [[{"Sequence": {"id": text, "type_id": kind}}] for kind, text in enumerate("AB")]
    content = bert_content()
    content["post_processor"] |= {
        "single": [*first, *of_texts[0]],
        "pair": [*first, *of_texts[0], *(second if begins_second else []), *of_texts[1]],
    }
    tokenizer = Tokenizer.from_pretrained(write_folder(tmp_path, content, config={"tokenizer_class": name}))
    assert not tokenizer.has_token_type_ids
    batch = tokenizer("a b", return_tensors="pt")
    assert list(batch) == ["input_ids", "attention_mask"]
    model = CausalLanguageModel.from_config(DECODER_CONFIGS["llama"])
    assert model.generate(**batch, max_new_tokens=2, min_new_tokens=2).shape == (1, 5)


def test_the_side_of_padding_can_be_said_when_it_is_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, bert_content())
    batch = Tokenizer.from_pretrained(folder, padding_side="left")(["a", "a b"], padding=True)
    assert batch["attention_mask"] == [[0, 1, 1, 1], [1, 1, 1, 1]]
    with pytest.raises(ValueError, match="unknown side 'up'"):
        Tokenizer.from_pretrained(folder, padding_side="up")


def test_a_single_text_can_have_token_types(tmp_path: Path) -> None:
    content = bert_content()
    content["post_processor"]["single"][0]["SpecialToken"]["type_id"] = 2
    batch = Tokenizer.from_pretrained(write_folder(tmp_path, content)).encode_batch(["a", "b b"])
    assert batch.token_type_ids == [[2, 0, 0], [2, 0, 0, 0]]
    assert batch.pad()["token_type_ids"].tolist() == [[2, 0, 0, 0], [2, 0, 0, 0]]


class TestVocabularyFiles:
    def test_word_piece(self, tmp_path: Path) -> None:
        (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
        tokenizer = Tokenizer.from_pretrained(tmp_path)
        assert tokenizer.encode_batch(["Sparse ä[MASK]", "a" * 101]).input_ids == [
            [CLS, SPARSE, A, MASK, SEP],
            [CLS, UNK, SEP],
        ]
        assert tokenizer.encode_batch(["a"], ["b"]).token_type_ids == [[0, 0, 0, 1, 1]]
        assert dict(tokenizer.config.special_tokens) == BERT
        assert tokenizer.get_vocab() == bert_tokenizer().get_vocab()

    @pytest.mark.parametrize(
        ("options", "ids"),
        [
            ({}, [A, A, UNK, A, A]),
            ({"do_lower_case": False}, [UNK, UNK, UNK, UNK, A]),
            ({"strip_accents": False}, [A, UNK, UNK, UNK, A]),
            ({"do_lower_case": False, "strip_accents": True}, [UNK, UNK, UNK, A, A]),
            ({"tokenize_chinese_chars": False}, [A, A, UNK, A]),
            ({"do_basic_tokenize": False}, [UNK, UNK, UNK, A]),
        ],
    )
    def test_word_piece_options(self, options: dict[str, object], ids: list[int], tmp_path: Path) -> None:
        (tmp_path / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(options))
        tokenizer = Tokenizer.from_pretrained(tmp_path)
        assert tokenizer.encode_batch(["A Ä 東ä a"], add_special_tokens=False).input_ids == [ids]

    def test_word_piece_keeps_odd_lines(self, tmp_path: Path) -> None:
        words = [*WORDS[:5], "\u2028", "\x0b", "\x85", " ", "a"]
        (tmp_path / "vocab.txt").write_bytes("\r\n".join(words).encode())
        assert Tokenizer.from_pretrained(tmp_path).convert_tokens_to_ids(["\u2028", "\x0b", "\x85", " ", "a"]) == [
            5,
            6,
            7,
            8,
            9,
        ]

    @pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
    def test_byte_level(self, names: tuple[str, str], tmp_path: Path) -> None:
        tokenizer = Tokenizer.from_pretrained(write_bpe(tmp_path, names))
        assert tokenizer.encode_batch(["ab ab", "ba <mask>"]).input_ids == [[0, 7, 8, 2], [0, 5, 4, 9, 2]]
        assert tokenizer.encode_batch(["a"], ["b"]).input_ids == [[0, 4, 2, 2, 5, 2]]
        assert tokenizer.mask_token_id == 9
        assert not tokenizer.has_token_type_ids
        assert tokenizer.encode_batch(["ab ab"]).offsets == [[(0, 0), (0, 2), (3, 5), (0, 0)]]

    def test_byte_level_with_a_blank_in_front(self, tmp_path: Path) -> None:
        (write_bpe(tmp_path) / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
        assert Tokenizer.from_pretrained(tmp_path).encode_batch(["ab"]).input_ids == [[0, 8, 2]]

    def test_gpt2(self, tmp_path: Path) -> None:
        (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}))
        (tmp_path / "merges.txt").write_text("a b\n")
        tokenizer = Tokenizer.from_pretrained(tmp_path)
        assert tokenizer.encode_batch(["aab<|endoftext|>b"]).input_ids == [[0, 2, 3, 1]]
        assert tokenizer.bos_token_id == tokenizer.eos_token_id == 3
        assert tokenizer.pad_token is None

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({"vocab.txt": "[PAD]\n[UNK]\n[CLS]\na"}, "sep_token.*lacks '\\[SEP\\]'"),
            ({"vocab.txt": b"\xff\xfe"}, "must be UTF-8"),
            ({"spiece.model": b"\n"}, "spiece.model: cannot build .* writes a tokenizer.json"),
            ({"vocab.json": '{"a": 0, "<|endoftext|>": 1}', "merges.txt": "a\n"}, "line 1 must hold two tokens"),
            ({"vocab.json": '{"a": 0, "<|endoftext|>": 1}', "merges.txt": "a a\n"}, "cannot be used"),
            ({"vocab.json": '{"a": 0, "<|endoftext|>": 0}', "merges.txt": ""}, "have the same id 0"),
            ({"vocab.json": '{"a": 0}', "merges.txt": ""}, "lacks '<|endoftext|>'"),
            ({"vocab.json": '["a"]', "merges.txt": ""}, "must hold a JSON object"),
            (
                {"vocab.txt": "a", "tokenizer_config.json": '{"tokenizer_class": "BertJapaneseTokenizer"}'},
                "BertJapanese",
            ),
            (
                {"vocab.json": "{}", "merges.txt": "", "tokenizer_config.json": '{"tokenizer_class": "CLIPTokenizer"}'},
                "cannot build a CLIPTokenizer",
            ),
        ],
    )
    def test_wrong_files(self, files: dict[str, str | bytes], message: str, tmp_path: Path) -> None:
        for name, text in files.items():
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(TokenizerError, match=message):
            Tokenizer.from_pretrained(tmp_path)


class TestSave:
    def test_round_trip(self, tmp_path: Path) -> None:
        tokenizer = bert_tokenizer(model_max_length=7, padding_side="left", truncation_side="left")
        tokenizer.encode_batch(["a"], max_length=3)
        tokenizer.save_pretrained(tmp_path / "new")
        assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
        content = json.loads((tmp_path / "new" / "tokenizer.json").read_text())
        assert content["truncation"] is content["padding"] is None
        again = Tokenizer.from_pretrained(tmp_path / "new")
        assert again.fingerprint == tokenizer.fingerprint
        assert again.encode_batch(["a b a b a b"]).input_ids == tokenizer.encode_batch(["a b a b a b"]).input_ids
        assert (again.model_max_length, again.padding_side) == (7, "left")
        assert dict(again.config.special_tokens) == BERT

    def test_unknown_keys_stay(self, tmp_path: Path) -> None:
        config = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": True,
            "name_or_path": "x",
            "mask_token": {"__type": "AddedToken", "content": "[MASK]", "lstrip": True},
            "model_max_length": 512,
        }
        tokenizer = Tokenizer.from_pretrained(write_folder(tmp_path / "a", bert_content(), config=config))
        tokenizer.model_max_length = 128
        tokenizer.pad_token = "[SEP]"
        tokenizer.save_pretrained(tmp_path / "b")
        written = json.loads((tmp_path / "b" / "tokenizer_config.json").read_text())
        expected = {**config, "model_max_length": 128, "pad_token": "[SEP]"}
        names = ["input_ids", "token_type_ids", "attention_mask"]
        assert written == {**expected, "model_input_names": names}

    def test_what_was_built_from_a_vocabulary_needs_it_no_more(self, tmp_path: Path) -> None:
        (tmp_path / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
        tokenizer = Tokenizer.from_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path / "new")
        again = Tokenizer.from_pretrained(tmp_path / "new")
        assert again.fingerprint == tokenizer.fingerprint
        assert again.encode_batch(["Sparse a"]).input_ids == [[CLS, SPARSE, A, SEP]]

    def test_a_tokenizer_made_here(self, tmp_path: Path) -> None:
        backend = roberta_backend()
        backend.normalizer = normalizers.NFC()
        backend.enable_truncation(3)
        backend.enable_padding(length=9)
        tokenizer = Tokenizer(backend, TokenizerConfig(special_tokens={"pad_token": "<pad>"}))
        assert tokenizer.encode_batch(["ab ab ab"]).lengths == [5]
        tokenizer.save_pretrained(tmp_path)
        assert Tokenizer.from_pretrained(tmp_path).encode_batch(["ab ab ab"]).input_ids == [[0, 7, 8, 8, 2]]
