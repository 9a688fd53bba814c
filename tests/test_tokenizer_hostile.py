"""Whatever stands in the files: a tokenizer that works and survives saving, or a TokenizerError."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from text_helpers import BERT, bert_backend, write_folder

from sparse_encoder.checkpoint import TokenizerError
from sparse_encoder.tokenizer import Tokenizer

CONFIG = {
    **BERT,
    "model_max_length": 20,
    "padding_side": "right",
    "added_tokens_decoder": {"4": {"content": "[MASK]", "special": True}},
    "additional_special_tokens": ["[MASK]"],
    "model_input_names": ["input_ids"],
    "tokenizer_class": "BertTokenizer",
}
ODD: list[object] = [
    None,
    True,
    False,
    -1,
    0,
    99,
    2**31,
    2**63,
    10**20,
    1.5,
    "",
    "x",
    "[CLS]",
    "\x00",
    "(a+)+$",
    "a" * 5000,
]
ODD += [[], {}, [1], ["x"], [[]], {"x": 1}, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}]


def places(value: object, start: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Go through the places inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*start, key)
        yield from places(item, (*start, key))


def mutated(value: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Remove something from a JSON object, or put something odd in its place."""
    value = copy.deepcopy(value)
    *way, last = draw.choice(list(places(value)))
    node: Any = value
    for key in way:
        node = node[key]
    if draw.random() < 0.2:
        del node[last]
    else:
        node[last] = draw.choice(ODD)
    return value


@pytest.mark.parametrize("seed", range(4))
def test_mutated_files(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    content, usable = json.loads(bert_backend().to_str()), 0
    for _ in range(80):
        pair = (mutated(content, draw), CONFIG) if draw.random() < 0.7 else (content, mutated(CONFIG, draw))
        try:
            tokenizer = Tokenizer.from_pretrained(write_folder(tmp_path, pair[0], config=pair[1]))
            batch = tokenizer.encode_batch(["sparse a b.", "", "zz [MASK] 東"], max_length=10)
        except TokenizerError:
            continue
        usable += 1
        assert all(0 <= number < tokenizer.vocab_size for ids in batch.input_ids for number in ids)
        tokenizer.save_pretrained(tmp_path / "again")
        again = Tokenizer.from_pretrained(tmp_path / "again")
        assert again.encode_batch(["sparse a b."], max_length=10).input_ids == batch.input_ids[:1]
    assert 10 < usable < 75
