"""Tokenizers of MPNet and DeBERTa as transformers writes them, old and new, against ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from text_helpers import awkward_texts
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from sparse_encoder.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
PIECES = ["▁sparse", "▁dense", "ly", "▁", "s", "▁row", "r", "a", "b", "▁a", "▁b", "e", "n", "o", ".", ",", "é", "東"]
UNIGRAM = [(token, 0.0) for token in SPECIAL] + [(piece, -1.0 - number / 4) for number, piece in enumerate(PIECES)]
WORD_PIECES = ["<s>", "<pad>", "</s>", "<unk>", "sparse", "##ly", "dense", "row", "##s", "a", ".", "[UNK]", "<mask>"]
TEXTS = ["Sparsely dense rows.", "a  b\n\ta", "", "東 é [MASK] a<mask> b", "a " * 40, "  rows [PAD] x  "]


def assert_same(ours: Tokenizer, theirs: Any) -> None:  # noqa: ANN401 - a peer's class
    texts = [*TEXTS, *awkward_texts(60)]
    for pairs in (None, texts[::-1]):
        batch = ours.encode_batch(texts, pairs, max_length=24)
        options = {"truncation": True, "max_length": 24}
        expected = theirs(texts, pairs, return_offsets_mapping=True, return_special_tokens_mask=True, **options)
        assert batch.input_ids == expected["input_ids"]
        assert batch.special_tokens_mask == expected["special_tokens_mask"]
        assert batch.offsets == expected["offset_mapping"]
        padded = theirs(texts, pairs, padding=True, return_tensors="np", **options)
        mine = ours(texts, pairs, padding=True, return_tensors="np", **options)
        assert sorted(mine) == sorted(padded)
        for name, values in padded.items():
            assert (mine[name] == values).all(), name
    assert len(ours) == len(theirs)
    assert (ours.pad_token_id, ours.mask_token_id) == (theirs.pad_token_id, theirs.mask_token_id)


def assert_same_both_ways(theirs: Any, folder: Path) -> None:  # noqa: ANN401 - a peer's class
    theirs.save_pretrained(folder / "theirs")
    ours = Tokenizer.from_pretrained(folder / "theirs")
    assert_same(ours, theirs)
    ours.save_pretrained(folder / "ours")
    assert_same(ours, transformers.AutoTokenizer.from_pretrained(folder / "ours"))
    assert_same(Tokenizer.from_pretrained(folder / "ours"), theirs)


@pytest.mark.parametrize("options", [{}, {"do_lower_case": True}, {"split_by_punct": True, "add_prefix_space": False}])
def test_deberta(options: dict[str, bool], tmp_path: Path) -> None:
    theirs = transformers.DebertaV2TokenizerFast(vocab=UNIGRAM, **options)
    theirs.pad_token_id = 0
    assert_same_both_ways(theirs, tmp_path)


def test_deberta_as_older_versions_wrote_it(tmp_path: Path) -> None:
    """With the map of characters that SentencePiece had; this one is empty."""
    backend = Backend(models.Unigram(UNIGRAM, unk_id=3))
    map_of_nothing = (1024).to_bytes(4, "little") + bytes(1024)
    backend.normalizer = normalizers.Sequence(
        [normalizers.Strip(), normalizers.Precompiled(map_of_nothing), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace()])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    backend.add_special_tokens(SPECIAL)
    names = dict(zip(("pad_token", "cls_token", "sep_token", "unk_token", "mask_token"), SPECIAL, strict=True))
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=512, **names)
    theirs.model_input_names = ["input_ids", "attention_mask", "token_type_ids"]
    assert_same_both_ways(theirs, tmp_path)
    written = tmp_path / "theirs/tokenizer_config.json"
    config = json.loads(written.read_text()) | {"tokenizer_class": "DebertaV2Tokenizer", "sp_model_kwargs": {}}
    written.write_text(json.dumps({**config, "bos_token": "[CLS]", "eos_token": "[SEP]", "vocab_type": "spm"}))
    assert_same(Tokenizer.from_pretrained(tmp_path / "theirs"), theirs)


def test_mpnet(tmp_path: Path) -> None:
    theirs = transformers.MPNetTokenizer(vocab={token: number for number, token in enumerate(WORD_PIECES)})
    assert_same_both_ways(theirs, tmp_path)


def test_mpnet_from_its_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORD_PIECES) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MPNetTokenizer"}))
    assert_same(Tokenizer.from_pretrained(tmp_path), transformers.MPNetTokenizer.from_pretrained(tmp_path))
