"""Transition scores, texts that end a result, and streamers do what transformers' do."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from sparse_encoder.generation import StopStringCriteria, TextIteratorStreamer, compute_transition_scores

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

V = 60
Anything = Any  # objects of transformers


@pytest.fixture(scope="module")
def model() -> Anything:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=16, vocab_size=V, n_positions=64, initializer_range=0.6, eos_token_id=5
    )
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Anything:
    """Bytes, and a few pieces of several."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = [("s", "t"), ("o", "p"), ("st", "op"), ("e", "r"), ("Ġ", "a")]
    pieces = [*letters, *("".join(pair) for pair in merges)]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({piece: n for n, piece in enumerate(pieces)}, merges))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)


def generated(model: Anything, values: dict[str, Anything]) -> Anything:
    prompt = torch.tensor([[3, 9, 8], [7, 1, 2]])
    outputs = {"return_dict_in_generate": True, "output_scores": True}
    return model.generate(prompt, attention_mask=torch.ones_like(prompt), pad_token_id=0, **outputs, **values)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        {"max_new_tokens": 6},
        {"max_new_tokens": 6, "do_sample": True, "num_return_sequences": 2},
        {"max_new_tokens": 8, "num_beams": 4, "num_return_sequences": 4},
        {"max_new_tokens": 8, "num_beams": 3, "length_penalty": -1.0},
    ],
    ids=str,
)
def test_transition_scores(model: Anything, values: dict[str, Anything], normalize: bool) -> None:
    found = generated(model, values)
    beams = getattr(found, "beam_indices", None)
    expected = model.compute_transition_scores(found.sequences, found.scores, beams, normalize_logits=normalize)
    mine = compute_transition_scores(found.sequences, found.scores, beams, normalize_logits=normalize)
    torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("length_penalty", [1.0, 2.0, -1.0])
def test_scores_of_sequences_are_found_again(model: Anything, length_penalty: float) -> None:
    values = {"max_new_tokens": 8, "num_beams": 4, "num_return_sequences": 4, "length_penalty": length_penalty}
    found = generated(model, values)
    scores = compute_transition_scores(found.sequences, found.scores, found.beam_indices)
    lengths = (found.beam_indices >= 0).sum(dim=1)
    torch.testing.assert_close(scores.sum(dim=1) / lengths**length_penalty, found.sequences_scores)


@pytest.mark.parametrize("texts", ["stop", ["stop", "er"], " a", ["p", "ros"], "xst"], ids=str)
def test_texts_that_end_a_result(tokenizer: Anything, texts: str | list[str]) -> None:
    from transformers.generation import StopStringCriteria as PeerCriteria

    mine, theirs = StopStringCriteria(tokenizer, texts), PeerCriteria(tokenizer, texts)
    draw = random.Random(0)
    words = ["stop", "st", "op", "er", " a", "s", "t", "o", "p", "r", " ", "x"]
    rows = [tokenizer("".join(draw.choices(words, k=8)))["input_ids"][-6:] for _ in range(300)]
    ids = torch.tensor([row for row in rows if len(row) == 6])
    found = mine(ids, None)
    assert torch.equal(found, theirs(ids, None))
    assert 0 < int(found.sum()) < len(ids)


@pytest.mark.parametrize("text", ["A story, one day.\nIt went on\n\nand  on", "中文 and é 文", "", " a b", "x\n"])
@pytest.mark.parametrize("skip_prompt", [False, True])
def test_streams(tokenizer: Anything, text: str, skip_prompt: bool) -> None:
    from transformers import TextIteratorStreamer as PeerStreamer

    parts = []
    for kind in (TextIteratorStreamer, PeerStreamer):
        streamer = kind(tokenizer, skip_prompt=skip_prompt, timeout=5.0)
        streamer.put(torch.tensor([tokenizer("The begin")["input_ids"]]))
        for token in tokenizer(text)["input_ids"] if text else []:
            streamer.put(torch.tensor([token]))
        streamer.end()
        ended = list(streamer)
        parts.append(ended)
    assert parts[0] == parts[1]
