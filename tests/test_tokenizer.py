from __future__ import annotations

import copy
import pickle
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from text_helpers import (
    BB,
    BERT,
    CLS,
    DENSE,
    DOT,
    LY,
    MASK,
    PAD,
    ROW,
    SEP,
    SPARSE,
    UNK,
    A,
    B,
    S,
    bert_backend,
    bert_tokenizer,
)

from sparse_encoder.checkpoint import TokenizerError
from sparse_encoder.tokenizer import UNLIMITED, Tokenizer, TokenizerConfig
from sparse_encoder.tokenizer_engine import CHARACTERS_PER_TOKEN, Engine


def test_special_tokens_have_texts_and_ids() -> None:
    tokenizer = bert_tokenizer()
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("[PAD]", PAD)
    assert (tokenizer.unk_token, tokenizer.unk_token_id) == ("[UNK]", UNK)
    assert (tokenizer.cls_token, tokenizer.cls_token_id) == ("[CLS]", CLS)
    assert (tokenizer.sep_token, tokenizer.sep_token_id) == ("[SEP]", SEP)
    assert (tokenizer.mask_token, tokenizer.mask_token_id) == ("[MASK]", MASK)
    assert tokenizer.bos_token is tokenizer.bos_token_id is tokenizer.eos_token is tokenizer.eos_token_id is None
    assert sorted(tokenizer.all_special_ids) == [PAD, UNK, CLS, SEP, MASK]


def test_a_special_token_can_be_set() -> None:
    tokenizer = bert_tokenizer()
    tokenizer.eos_token = "[SEP]"
    assert tokenizer.eos_token_id == SEP
    tokenizer.pad_token_id = MASK
    assert tokenizer.pad_token == "[MASK]"
    assert tokenizer.encode_batch(["a", ""]).pad()["input_ids"].tolist()[1] == [CLS, SEP, MASK]
    for wrong in ("nope", 99):
        with pytest.raises(ValueError, match="eos_token must be in the vocabulary"):
            tokenizer.eos_token = wrong


def test_a_special_token_that_is_not_in_the_vocabulary_is_refused() -> None:
    with pytest.raises(TokenizerError, match="pad_token.*lacks '<pad>'"):
        Tokenizer(bert_backend(), TokenizerConfig(special_tokens={**BERT, "pad_token": "<pad>"}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"special_tokens": {"end_token": "a"}},
        {"padding_side": "up"},
        {"truncation_side": "both"},
        {"model_max_length": 0},
    ],
)
def test_a_config_checks_its_values(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"unknown|at least"):
        TokenizerConfig(**wrong)  # type: ignore[arg-type]


def test_tokens_and_ids_convert() -> None:
    tokenizer = bert_tokenizer()
    assert tokenizer.vocab_size == len(tokenizer) == 15
    assert tokenizer.get_vocab()["sparse"] == SPARSE
    assert tokenizer.convert_ids_to_tokens([SPARSE, LY]) == ["sparse", "##ly"]
    assert tokenizer.convert_ids_to_tokens(np.int64(DOT)) == "."
    assert tokenizer.convert_tokens_to_ids(["row", "nope"]) == [ROW, UNK]
    assert tokenizer.convert_tokens_to_ids("##s") == S
    assert tokenizer.tokenize("Sparsely dense.") == ["sparse", "##ly", "dense", "."]
    assert tokenizer.decode([CLS, SPARSE, LY, ROW, S, SEP]) == "[CLS] sparsely rows [SEP]"
    assert tokenizer.decode(torch.tensor([CLS, SPARSE, LY, SEP]), skip_special_tokens=True) == "sparsely"  # type: ignore[arg-type]


def test_truncation_keeps_the_special_tokens() -> None:
    tokenizer = bert_tokenizer(model_max_length=5)
    assert tokenizer.encode_batch(["a b a b a b"]).input_ids == [[CLS, A, B, A, SEP]]
    assert tokenizer.encode_batch(["a b a b a b"], max_length=4).input_ids == [[CLS, A, B, SEP]]
    assert tokenizer.encode_batch(["a b a b a b"], max_length=3, add_special_tokens=False).input_ids == [[A, B, A]]
    tokenizer.model_max_length = 3
    assert tokenizer.encode_batch(["a b"]).input_ids == [[CLS, A, SEP]]


def test_truncation_of_pairs_takes_from_the_longer() -> None:
    tokenizer = bert_tokenizer()
    assert tokenizer.encode_batch(["a a a a"], ["b"], max_length=6).input_ids == [[CLS, A, A, SEP, B, SEP]]


def test_truncation_on_the_left() -> None:
    tokenizer = bert_tokenizer(truncation_side="left")
    assert tokenizer.encode_batch(["a a b . dense"], max_length=4).input_ids == [[CLS, DOT, DENSE, SEP]]
    other = bert_tokenizer()
    other.truncation_side = "left"
    other.padding_side = "left"
    assert other.encode_batch(["a b", "."], max_length=3).pad(length=4)["input_ids"].tolist()[0] == [PAD, CLS, B, SEP]
    long = "a " * 200_000 + "b dense"
    assert tokenizer.encode_batch([long], max_length=4).input_ids == [[CLS, B, DENSE, SEP]]


@pytest.mark.parametrize(("pairs", "special", "least"), [(None, True, 3), (["b"], True, 4), (None, False, 1)])
def test_a_length_without_room_for_a_token_is_refused(pairs: list[str] | None, special: bool, least: int) -> None:
    tokenizer = bert_tokenizer()
    tokenizer.encode_batch(["a"], pairs, max_length=least, add_special_tokens=special)
    with pytest.raises(ValueError, match=f"max_length must be at least {least}"):
        tokenizer.encode_batch(["a"], pairs, max_length=least - 1, add_special_tokens=special)


@pytest.mark.parametrize(
    ("wrong", "place"),
    [(None, 1), (3, 1), (b"b", 1), (float("nan"), 1), (["b"], 1), ({"b": 1}, 1), (("b", "c"), 1), (True, 1)],
)
def test_what_is_no_string_is_named_by_its_place(wrong: object, place: int) -> None:
    with pytest.raises(TypeError, match=rf"texts\[{place}\] must be a string, got {type(wrong).__name__}"):
        bert_tokenizer().encode_batch(["a", wrong, 3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=rf"pairs\[{place}\]"):
        bert_tokenizer().encode_batch(["a", "a", "a"], ["a", wrong, 3])  # type: ignore[list-item]


@pytest.mark.parametrize("wrong", ["a", b"a", None, 3, {"a": 1}])
def test_what_is_no_list_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="texts must be a list of strings"):
        bert_tokenizer().encode_batch(wrong)  # type: ignore[arg-type]


def test_texts_may_come_in_any_sequence() -> None:
    expected = [[CLS, A, SEP], [CLS, B, SEP]]
    for texts in (("a", "b"), np.array(["a", "b"]), np.array(["a", "b"], dtype=object), iter(["a", "b"])):
        assert bert_tokenizer().encode_batch(texts).input_ids == expected  # type: ignore[arg-type]


def test_as_many_pairs_as_texts() -> None:
    with pytest.raises(ValueError, match="texts and pairs must be as many, got 2 and 1"):
        bert_tokenizer().encode_batch(["a", "b"], ["a"])


def test_lone_surrogates_become_the_replacement_character() -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\ufffd", "😀", "a"]
    backend = bert_backend(words)
    backend.normalizer = None  # type: ignore[assignment]
    tokenizer = Tokenizer(backend, TokenizerConfig(special_tokens=BERT))
    texts = ["a \ud83d a", "\ud83d\ude00", "a"]
    assert tokenizer.encode_batch(texts).input_ids == [[CLS, 7, 5, 7, SEP], [CLS, 6, SEP], [CLS, 7, SEP]]
    assert tokenizer.encode_batch(["a"], ["\udfff"]).input_ids == [[CLS, 7, SEP, 5, SEP]]
    assert tokenizer.encode_batch(texts).offsets[1] == [(0, 0), (0, 1), (0, 0)]


def test_nul_and_blank_texts_are_texts() -> None:
    ids = bert_tokenizer().encode_batch(["\x00", "  \n", "a\x00b", ""]).input_ids
    assert ids == [[CLS, SEP], [CLS, SEP], [CLS, A, BB, SEP], [CLS, SEP]]


def test_long_texts_take_bounded_time() -> None:
    tokenizer = bert_tokenizer(model_max_length=64)
    started = time.perf_counter()
    texts = ["a b " * 2_500_000, "a" * 1_000_000, " " * 10_000_000, ("a" * 200 + " ") * 50_000, "東" * 3_000_000]
    batch = tokenizer.encode_batch(texts)
    assert time.perf_counter() - started < 5
    assert batch.lengths == [64, 3, 2, 64, 64]
    assert batch.input_ids[1] == [CLS, UNK, SEP]
    assert tokenizer.encode_batch(["a b " * 2_500_000], ["b"]).lengths == [64]
    assert time.perf_counter() - started < 10


def test_only_what_lies_beyond_the_last_cut_is_not_seen() -> None:
    tokenizer = bert_tokenizer(model_max_length=64)
    for gap in (10, 64 * CHARACTERS_PER_TOKEN[0], 64 * CHARACTERS_PER_TOKEN[1], 64 * CHARACTERS_PER_TOKEN[2] - 10):
        assert tokenizer.encode_batch(["a" + " " * gap + "b", "b"]).input_ids == [[CLS, A, B, SEP], [CLS, B, SEP]]
    assert tokenizer.encode_batch(["a" + " " * 64 * CHARACTERS_PER_TOKEN[2] + "b"]).input_ids == [[CLS, A, SEP]]


pieces = st.sampled_from(["sparse", "sparsely", "rows", "ab", ".", "\n", "   ", "x" * 40, "東", "a" * 130, "y" * 2000])
long_texts = st.tuples(st.lists(pieces, min_size=1, max_size=9), st.integers(1, 80))


@settings(deadline=None, max_examples=40)
@given(st.lists(long_texts, min_size=1, max_size=2), st.integers(3, 60))
def test_cutting_before_encoding_changes_nothing(texts: list[tuple[list[str], int]], limit: int) -> None:
    tokenizer = bert_tokenizer()
    joined = [" ".join(text * repeat)[: limit * CHARACTERS_PER_TOKEN[2]] for text, repeat in texts]
    whole = [encoding.ids for encoding in tokenizer.backend.encode_batch(joined, add_special_tokens=False)]
    expected = [[CLS, *ids[: limit - 2], SEP] for ids in whole]
    assert tokenizer.encode_batch(joined, max_length=limit).input_ids == expected


def test_threads_with_different_lengths_do_not_disturb_each_other() -> None:
    tokenizer = bert_tokenizer()
    texts = ["a b " * 50] * 64
    wrong: list[set[int]] = []

    def encode(limit: int) -> None:
        for _ in range(10):
            lengths = set(tokenizer.encode_batch(texts, max_length=limit).lengths)
            if lengths != {limit}:
                wrong.append(lengths)

    threads = [threading.Thread(target=encode, args=(limit,)) for limit in (5, 5, 17, 64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert not any(thread.is_alive() for thread in threads)


def test_who_waits_is_let_in_before_who_comes_later() -> None:
    engine = Engine(bert_backend())
    order: list[str] = []

    def use(name: str, limit: int) -> None:
        with engine.truncation(limit):
            order.append(name)

    with engine.truncation(5):
        with engine.truncation(5):
            order.append("same")
        waiting = [threading.Thread(target=use, args=("other", 7)), threading.Thread(target=use, args=("late", 5))]
        for thread in waiting:
            thread.start()
            thread.join(0.05)
        order.append("done")
    for thread in waiting:
        thread.join(10)
    assert order[:2] == ["same", "done"]
    assert sorted(order[2:]) == ["late", "other"]


def test_copies_and_pickles_are_the_same_tokenizer() -> None:
    tokenizer = bert_tokenizer(model_max_length=5)
    for other in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert other.encode_batch(["a b a b"]).input_ids == [[CLS, A, B, A, SEP]]
        assert other.fingerprint == tokenizer.fingerprint
        assert other.config == tokenizer.config
    other.model_max_length = 9
    assert tokenizer.model_max_length == 5


def test_the_fingerprint_tells_vocabularies_apart() -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    config = TokenizerConfig(special_tokens=BERT)
    one, two = Tokenizer(bert_backend(words), config), Tokenizer(bert_backend([*words[:5], "b", "a"]), config)
    assert one.fingerprint != two.fingerprint
    assert one.fingerprint == Tokenizer(bert_backend(words), config).fingerprint
    assert len(one.fingerprint) == 64
    one.encode_batch(["a"], max_length=4)
    del one.fingerprint
    assert one.fingerprint == Tokenizer(bert_backend(words), config).fingerprint, "truncation is not part of it"


def test_the_details_are_those_of_the_same_call() -> None:
    tokenizer = bert_tokenizer()
    batch = tokenizer.encode_batch(["sparsely a b", "rows"], max_length=4)
    tokenizer.encode_batch(["a"], max_length=3)
    assert [encoding.ids for encoding in batch.encodings] == batch.input_ids
    assert batch.offsets[0] == [(0, 0), (0, 6), (6, 8), (0, 0)]
    assert batch.word_ids[0] == [None, 0, 0, None]


class TestCall:
    def test_lists(self) -> None:
        tokenizer = bert_tokenizer()
        assert tokenizer("a b") == {
            "input_ids": [CLS, A, B, SEP],
            "token_type_ids": [0, 0, 0, 0],
            "attention_mask": [1, 1, 1, 1],
        }
        assert tokenizer(["a b", ""])["input_ids"] == [[CLS, A, B, SEP], [CLS, SEP]]
        assert tokenizer("a", "b")["token_type_ids"] == [0, 0, 0, 1, 1]
        assert tokenizer("a", add_special_tokens=False)["input_ids"] == [A]

    def test_padding_and_truncation(self) -> None:
        tokenizer = bert_tokenizer(model_max_length=6)
        long = "a b " * 9
        assert len(tokenizer(long)["input_ids"]) == 20
        assert len(tokenizer(long, truncation=True)["input_ids"]) == 6
        assert len(tokenizer(long, truncation="longest_first", max_length=4)["input_ids"]) == 4
        assert tokenizer(["a", "a b"], padding=True)["attention_mask"] == [[1, 1, 1, 0], [1, 1, 1, 1]]
        assert tokenizer("a", padding="max_length")["input_ids"] == [CLS, A, SEP, PAD, PAD, PAD]
        assert tokenizer("a", padding="max_length", max_length=4)["input_ids"] == [CLS, A, SEP, PAD]

    def test_tensors(self) -> None:
        tokenizer = bert_tokenizer()
        features = tokenizer(["a", "a b"], padding="longest", return_tensors="pt")
        assert torch.equal(features["input_ids"], torch.tensor([[CLS, A, SEP, PAD], [CLS, A, B, SEP]]))
        assert tokenizer("a", return_tensors="pt")["input_ids"].shape == (1, 3)
        assert isinstance(tokenizer("a", return_tensors="np")["attention_mask"], np.ndarray)
        with pytest.raises(ValueError, match="padding=True"):
            tokenizer(["a", "a b"], return_tensors="pt")

    def test_results_answer_by_attribute_and_move(self) -> None:
        output = bert_tokenizer()(["a", "a b"], padding=True, return_tensors="pt")
        assert output.input_ids is output["input_ids"]
        assert output.to("meta").attention_mask.device.type == "meta"
        assert output.attention_mask.device.type == "cpu"
        assert bert_tokenizer()("a").to("meta").input_ids == [CLS, A, SEP]
        with pytest.raises(AttributeError, match="no 'labels' in what the tokenizer made"):
            _ = output.labels

    @pytest.mark.parametrize("wrong", [{"padding": "most"}, {"truncation": "only_first"}, {"return_tensors": "tf"}])
    def test_unknown_options(self, wrong: dict[str, str]) -> None:
        with pytest.raises(ValueError, match=f"unknown {next(iter(wrong))}"):
            bert_tokenizer()("a", **wrong)  # type: ignore[arg-type]


def test_no_limit_is_written_as_hugging_face_does() -> None:
    assert bert_tokenizer().model_max_length == UNLIMITED == 10**30
    assert bert_tokenizer().encode_batch(["a " * 3000]).lengths == [3002]


def test_other_ways_to_ids_and_back() -> None:
    tokenizer = bert_tokenizer()
    assert tokenizer.vocab == tokenizer.get_vocab()
    assert {number: token for token, number in tokenizer.vocab.items()}[SPARSE] == "sparse"
    assert tokenizer.encode("a b") == [CLS, A, B, SEP]
    assert tokenizer.encode("a", "b", add_special_tokens=False) == [A, B]
    for number in (SPARSE, np.int64(SPARSE), torch.tensor(SPARSE), [SPARSE], torch.tensor([SPARSE])):
        assert tokenizer.decode(number) == "sparse"  # type: ignore[arg-type]
    assert tokenizer.batch_decode(torch.tensor([[CLS, A], [SPARSE, LY]]), skip_special_tokens=True) == ["a", "sparsely"]


def test_tokenizers_of_others_are_taken_over() -> None:
    class Foreign:
        def save_pretrained(self, folder: str) -> None:
            bert_tokenizer(model_max_length=7).save_pretrained(folder)

    own = bert_tokenizer()
    assert Tokenizer.of(own) is own
    taken = Tokenizer.of(Foreign())
    assert (taken.model_max_length, taken.fingerprint) == (7, own.fingerprint)
    assert Tokenizer.of(bert_backend()).encode("a b") == [CLS, A, B, SEP]
    with pytest.raises(TypeError, match="must be a Tokenizer, got dict"):
        Tokenizer.of({})
