"""Ids back to texts, padding at either side, and tokenizers of models that write: no padding token, a begin token."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from text_helpers import BERT, CLS, DOT, LY, PAD, SEP, SPARSE, A, B, bert_tokenizer, llama_backend, llama_tokenizer
from tokenizers import AddedToken, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from sparse_encoder.checkpoint.errors import TokenizerError
from sparse_encoder.tokenizer import Tokenizer, TokenizerConfig

BOS, EOS = 1, 2


@pytest.mark.parametrize("as_what", [list, tuple, np.array, torch.tensor, iter])
def test_ids_come_in_any_form(as_what: type) -> None:
    ids = [CLS, SPARSE, LY, B, SEP]
    tokenizer = bert_tokenizer()
    assert tokenizer.decode(as_what(ids), skip_special_tokens=True) == "sparsely b"
    assert tokenizer.convert_ids_to_tokens(as_what(ids)) == ["[CLS]", "sparse", "##ly", "b", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(as_what(ids), skip_special_tokens=True) == ["sparse", "##ly", "b"]
    assert tokenizer.batch_decode(as_what(ids), True) == ["sparsely b"]


def test_a_list_of_rows_decodes_to_a_list_of_texts() -> None:
    tokenizer = bert_tokenizer()
    rows = [[CLS, A], [SPARSE, LY]]
    for given in (rows, torch.tensor(rows), np.array(rows), [torch.tensor(row) for row in rows], tuple(rows)):
        assert tokenizer.decode(given) == tokenizer.batch_decode(given) == ["[CLS] a", "sparsely"]
    assert tokenizer.batch_decode([[A], []]) == ["a", ""]
    assert tokenizer.batch_decode([]) == []
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode(np.int32(A)) == tokenizer.decode(torch.tensor(A)) == "a"
    assert tokenizer.convert_ids_to_tokens(torch.tensor(A)) == "a"
    assert tokenizer.convert_ids_to_tokens(-1) is None


@pytest.mark.parametrize("wrong", [[0.5], np.array([1.0]), "5", ["5"], [None]])
def test_what_is_no_id_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="ids must be whole numbers, got"):
        bert_tokenizer().decode(wrong)
    with pytest.raises(TypeError, match="ids must be whole numbers, got"):
        bert_tokenizer().convert_ids_to_tokens(wrong)


def test_an_id_that_no_vocabulary_has_is_refused_and_one_that_this_has_not_is_no_text() -> None:
    with pytest.raises(TokenizerError, match="the ids cannot be decoded"):
        bert_tokenizer().decode([-100])
    assert bert_tokenizer().decode([A, 999]) == "a"


def test_cleaning_up_is_asked_for_or_written_in_the_files() -> None:
    """``tokenizers``' own decoder of WordPiece cleans up already; without one the blanks are still there."""
    backend = bert_tokenizer().backend
    backend.decoder = None
    plain = Tokenizer(backend, TokenizerConfig(special_tokens=BERT))
    assert plain.decode([A, DOT]) == "a ."
    assert plain.decode([A, DOT], clean_up_tokenization_spaces=True) == "a."
    said = Tokenizer(backend, TokenizerConfig(special_tokens=BERT, extra={"clean_up_tokenization_spaces": True}))
    assert said.decode([A, DOT]) == "a."
    assert said.batch_decode([[A, DOT]], clean_up_tokenization_spaces=False) == ["a ."]


def test_byte_pairs_keep_their_blanks(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = llama_tokenizer()
    ids = tokenizer.encode("spare .", add_special_tokens=False)
    assert tokenizer.decode(ids) == "spare ."
    assert not caplog.records
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=True) == "spare ."
    assert "clean_up_tokenization_spaces=True changes nothing" in caplog.text


def test_bytes_are_put_together_to_characters() -> None:
    tokenizer = llama_tokenizer()
    ids = tokenizer.encode("spare é東")
    assert ids[0] == BOS
    assert tokenizer.decode(ids) == "<s> spare é東"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "spare é東"
    assert tokenizer.decode(ids[:-1], skip_special_tokens=True) == "spare " + "\ufffd" * 4  # a run is read as a whole


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_goes_to_the_side_of_the_call(side: str) -> None:
    tokenizer = bert_tokenizer(padding_side="right" if side == "left" else "left")
    options = {"padding": True, "return_special_tokens_mask": True, "padding_side": side}
    output = tokenizer(["a", "a b"], **options)  # type: ignore[arg-type]
    short, padding = [CLS, A, SEP], [PAD]
    assert output["input_ids"][0] == (padding + short if side == "left" else short + padding)
    assert output["attention_mask"][0] == ([0, 1, 1, 1] if side == "left" else [1, 1, 1, 0])
    assert output["special_tokens_mask"][0] == ([1, 1, 0, 1] if side == "left" else [1, 0, 1, 1])
    assert output.tokens(0).index(None) == (0 if side == "left" else 3)
    assert tokenizer.padding_side != side
    tokenizer.padding_side = side
    assert tokenizer(["a", "a b"], padding=True)["input_ids"] == output["input_ids"]
    with pytest.raises(ValueError, match="unknown padding_side 'top'; choose 'right', 'left' or None"):
        tokenizer("a", padding_side="top")


def test_without_a_padding_token_padding_is_refused_until_one_is_named(tmp_path: Path) -> None:
    tokenizer = llama_tokenizer()
    assert tokenizer.pad_token is tokenizer.pad_token_id is None
    with pytest.raises(ValueError, match=r"need a padding token; set tokenizer\.pad_token"):
        tokenizer(["a", "spare a"], padding=True)
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer(["a", "spare a"], padding=True, padding_side="left")["input_ids"][0][0] == EOS
    tokenizer.save_pretrained(tmp_path)
    assert Tokenizer.from_pretrained(tmp_path).pad_token_id == EOS


class TestEnds:
    def test_the_begin_token_is_taken_away_and_put_back(self, tmp_path: Path) -> None:
        tokenizer = llama_tokenizer()
        ids, pair = tokenizer.encode("a"), tokenizer.encode("a", "a")
        fingerprint = tokenizer.fingerprint
        assert tokenizer.add_bos_token
        assert not tokenizer.add_eos_token
        tokenizer.add_bos_token = False
        assert tokenizer.encode("a") == ids[1:]
        assert tokenizer.encode("a", "a") == ids[1:] * 2
        assert tokenizer.fingerprint != fingerprint
        tokenizer.save_pretrained(tmp_path)
        assert not Tokenizer.from_pretrained(tmp_path).add_bos_token
        assert not pickle.loads(pickle.dumps(tokenizer)).add_bos_token
        tokenizer.add_bos_token = True
        assert (tokenizer.encode("a"), tokenizer.encode("a", "a")) == (ids, pair)
        assert tokenizer.fingerprint == fingerprint

    def test_the_end_token_stays_what_it_is_while_the_begin_token_goes(self) -> None:
        tokenizer = llama_tokenizer()
        tokenizer.add_eos_token = True
        inside = tokenizer.encode("a", add_special_tokens=False)
        assert tokenizer.encode("a") == [BOS, *inside, EOS]
        assert tokenizer.encode("a", "a") == [BOS, *inside, EOS] * 2
        tokenizer.add_bos_token = False
        assert tokenizer.encode("a") == [*inside, EOS]
        tokenizer.add_eos_token = False
        assert tokenizer.encode("a") == inside

    @pytest.mark.parametrize("framed", [None, processors.ByteLevel(trim_offsets=False)])
    def test_it_is_forced_in_where_nothing_was_around(self, framed: processors.PostProcessor | None) -> None:
        backend = llama_backend(bos=False)
        if framed is not None:
            backend.post_processor = framed
        config = TokenizerConfig(special_tokens={"bos_token": "<s>", "eos_token": "<s>"})
        tokenizer = Tokenizer(backend, config)
        inside = tokenizer.encode("a")
        tokenizer.add_bos_token = True
        assert tokenizer.encode("a") == [BOS, *inside]
        assert (tokenizer.add_bos_token, tokenizer.add_eos_token) == (True, False)
        tokenizer.add_eos_token = True  # the same token at both ends, as of GPT-2
        tokenizer.add_bos_token = False
        assert tokenizer.encode("a") == [*inside, BOS]
        assert not pickle.loads(pickle.dumps(tokenizer)).has_token_type_ids
        kept = json.loads(backend.post_processor.__getstate__())
        if framed is not None:
            assert kept["processors"][0] == json.loads(framed.__getstate__())

    def test_truncation_counts_the_token(self) -> None:
        tokenizer = llama_tokenizer(bos=False)
        assert tokenizer.encode_batch(["a a a a"], max_length=3).lengths == [3]
        tokenizer.add_bos_token = True
        found = tokenizer.encode_batch(["a a a a"], max_length=3).input_ids[0]
        assert (len(found), found[0]) == (3, BOS)

    def test_what_cannot_be_changed_is_refused(self) -> None:
        nameless = Tokenizer(llama_backend(bos=False), TokenizerConfig())
        with pytest.raises(ValueError, match=r"add_bos_token needs a token of that name; set tokenizer\.bos_token"):
            nameless.add_bos_token = True
        nameless.add_bos_token = False  # as it is
        with pytest.raises(TypeError, match="add_eos_token must be True or False, got 'yes'"):
            nameless.add_eos_token = "yes"  # type: ignore[assignment]
        fixed = llama_backend()
        fixed.post_processor = processors.RobertaProcessing(("</s>", EOS), ("<s>", BOS))
        roberta = Tokenizer(fixed, TokenizerConfig(special_tokens={"bos_token": "<s>", "eos_token": "</s>"}))
        assert roberta.add_bos_token
        assert roberta.add_eos_token
        with pytest.raises(ValueError, match="the tokenizer frames texts by RobertaProcessing; add_special_tokens=Fal"):
            roberta.add_bos_token = False

    @pytest.mark.parametrize(("flags", "before", "after"), [({}, 0, 0), ({"add_bos_token": True}, 1, 0)])
    def test_a_folder_of_vocabulary_files_says_it_by_flags(
        self, tmp_path: Path, flags: dict[str, bool], before: int, after: int
    ) -> None:
        words = {"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3}
        (tmp_path / "vocab.json").write_text(json.dumps(words))
        (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", **flags}))
        tokenizer = Tokenizer.from_pretrained(tmp_path)
        assert tokenizer.encode("ab") == [0] * before + [3] + [0] * after
        assert tokenizer.add_bos_token == bool(before)
        tokenizer.save_pretrained(tmp_path / "saved")
        assert Tokenizer.from_pretrained(tmp_path / "saved").encode("ab") == tokenizer.encode("ab")

    def test_a_tokenizer_json_says_it_itself_as_in_transformers_5(self, tmp_path: Path) -> None:
        llama_tokenizer().save_pretrained(tmp_path)
        path = tmp_path / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "add_bos_token": False, "add_eos_token": True}))
        tokenizer = Tokenizer.from_pretrained(tmp_path)
        assert (tokenizer.add_bos_token, tokenizer.add_eos_token) == (True, False)


def test_a_named_special_token_is_found_whole_and_left_out_though_the_vocabulary_does_not_mark_it(
    tmp_path: Path,
) -> None:
    backend = Backend(BPE({"a": 0, "<": 1, "e": 2, ">": 3, "<e>": 4}, []))
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<e>"}))
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode("a<e>") == [0, 4]
    assert tokenizer.decode([0, 4], skip_special_tokens=True) == "a"
    marked = Backend(BPE({"a": 0, "<e>": 1}, []))
    marked.add_special_tokens([AddedToken("<e>", lstrip=True)])
    marked.save(str(tmp_path / "tokenizer.json"))
    again = Tokenizer.from_pretrained(tmp_path).backend.get_added_tokens_decoder()[1]
    assert again.lstrip  # as the file says
