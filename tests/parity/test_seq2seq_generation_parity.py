"""Text of encoders with decoders of every form against that of transformers, and what only they are called with.

Caches of transformers have a place for each of the encoder's layers, so a deeper decoder writes there without one.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
import torch
from seq2seq_helpers import SEQ2SEQ_CONFIGS, B, decoder_ids, encoder_batch, randomise_pair
from torch import Tensor

from sparse_encoder.generation import Seq2SeqModel

transformers = pytest.importorskip("transformers")


class Pair(NamedTuple):
    ours: Seq2SeqModel
    peer: Any  # a peer's class


@cache
def pair_of(name: str) -> Pair:
    ours = Seq2SeqModel.from_config(SEQ2SEQ_CONFIGS[name]).double().eval()
    randomise_pair(ours)
    with TemporaryDirectory() as folder:
        ours.save_pretrained(Path(folder))
        peer = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float64).eval()
    return Pair(ours, peer)


def features(name: str) -> dict[str, Tensor]:
    return encoder_batch(left=False, pad=SEQ2SEQ_CONFIGS[name]["pad_token_id"])


def texts(name: str, **settings: Any) -> tuple[list[list[int]], list[list[int]]]:  # noqa: ANN401 - of generate
    """Return what both write; ours with a cache."""
    ours, peer = pair_of(name)
    asked = {"max_new_tokens": 7, **settings}
    return ours.generate(**asked).tolist(), peer.generate(**asked, use_cache=False).tolist()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5, "early_stopping": True},
        {"num_beams": 2, "no_repeat_ngram_size": 2, "forced_bos_token_id": 5},
        {"repetition_penalty": 1.3, "min_new_tokens": 6, "bad_words_ids": [[4], [6, 7]]},
    ],
)
@pytest.mark.parametrize("name", SEQ2SEQ_CONFIGS)
def test_every_form_writes_the_same(name: str, settings: dict[str, Any]) -> None:
    got, expected = texts(name, **features(name), **settings)
    assert got == expected


@pytest.mark.parametrize("name", ["t5 v1.1", "bart"])
def test_a_decoder_that_is_given_its_beginning_writes_on(name: str) -> None:
    start = SEQ2SEQ_CONFIGS[name]["decoder_start_token_id"]
    given = decoder_ids(tokens=3)
    for first in (given, torch.cat([torch.full((B, 1), start), given], dim=1)):
        for beams in (1, 2):
            got, expected = texts(name, **features(name), decoder_input_ids=first, num_beams=beams)
            assert got == expected
            assert [row[1:4] for row in got] == given.tolist()


@pytest.mark.parametrize("name", ["t5 v1.1", "bart"])
def test_a_beginning_that_is_padded_at_the_left_writes_on(name: str) -> None:
    given, mask = decoder_ids(tokens=4), torch.ones(B, 4, dtype=torch.long)
    mask[1, :2] = 0
    got, expected = texts(name, **features(name), decoder_input_ids=given, decoder_attention_mask=mask)
    assert got == expected


@pytest.mark.parametrize("name", ["t5 v1.1", "bart"])
def test_hidden_places_of_the_decoder_see_what_transformers_shows_them(name: str) -> None:
    ours, peer = pair_of(name)
    given, mask = decoder_ids(tokens=4), torch.ones(B, 4, dtype=torch.long)
    mask[1, 3], mask[2, 1] = 0, 0
    called = {**features(name), "decoder_input_ids": given, "decoder_attention_mask": mask}
    with torch.no_grad():
        got, expected = ours(**called).logits, peer(**called, use_cache=False).logits
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)  # its norms are computed in float32
    texts_of_both = texts(name, **called)
    assert texts_of_both[0] == texts_of_both[1]


@pytest.mark.parametrize("name", ["t5 v1.1", "bart"])
def test_what_the_encoder_made_and_embeddings_are_as_good_as_ids(name: str) -> None:
    ours, peer = pair_of(name)
    given = features(name)
    expected = peer.generate(**given, max_new_tokens=7, use_cache=False).tolist()
    mask = given["attention_mask"]
    with torch.no_grad():
        embeds = ours.backbone.embeddings.embed_words(given["input_ids"])
        encoded = ours.encode(**given)
    assert ours.generate(encoder_outputs=encoded, attention_mask=mask, max_new_tokens=7).tolist() == expected
    assert ours.generate(inputs_embeds=embeds, attention_mask=mask, max_new_tokens=7).tolist() == expected


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_each_row_may_begin_with_its_own_token(name: str) -> None:
    got, expected = texts(name, **features(name), decoder_start_token_id=[3, 5, 4])
    assert got == expected
    assert [row[0] for row in got] == [3, 5, 4]


@pytest.mark.parametrize("name", ["t5", "bart with scaled embeddings"])
def test_sampling_draws_the_same_under_one_seed(name: str) -> None:
    ours, peer = pair_of(name)
    for beams in (1, 2):
        settings = {"do_sample": True, "top_k": 6, "num_beams": beams, "max_new_tokens": 6}
        torch.manual_seed(3)
        got = ours.generate(**features(name), **settings).tolist()
        torch.manual_seed(3)
        assert got == peer.generate(**features(name), **settings, use_cache=False).tolist()
