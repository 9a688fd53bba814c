"""Tiny decoders of every kind write the same however they are called: with caches, alone, in batches, in pieces."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from decoder_helpers import DECODER_CONFIGS
from seq2seq_helpers import SEQ2SEQ_CONFIGS, randomise_pair
from torch import Tensor

from sparse_encoder.generation import CausalLanguageModel, DynamicCache, Seq2SeqModel, StaticCache

EVERY_STEP = {"return_dict_in_generate": True, "output_logits": True}
PROMPTS = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10], [0, 11, 12, 13]])
MASK = (PROMPTS != 0).long()
PAIRS = ("t5", "bart")
DECODERS = tuple(name for name in DECODER_CONFIGS if name in ("gpt2", "llama", "mistral", "qwen3"))
ENDLESS = {"eos_token_id": None, "pad_token_id": 0, "forced_eos_token_id": None}
WAYS: dict[str, dict[str, Any]] = {"greedy": {}, "beams": {"num_beams": 3, "num_return_sequences": 2}}


@cache
def model(name: str) -> Any:  # noqa: ANN401  # a CausalLanguageModel or a Seq2SeqModel
    built = (
        Seq2SeqModel.from_config(SEQ2SEQ_CONFIGS[name])
        if name in PAIRS
        else CausalLanguageModel.from_config(DECODER_CONFIGS[name])
    )
    built = built.double().eval()
    randomise_pair(built, seed=4)
    return built


def write(name: str, ids: Tensor = PROMPTS, mask: Tensor | None = MASK, **settings: Any) -> Any:  # noqa: ANN401
    return model(name).generate(ids, attention_mask=mask, **{"max_new_tokens": 6, **ENDLESS, **EVERY_STEP, **settings})


def assert_same(got: Any, expected: Any, rows: Tensor | None = None) -> None:  # noqa: ANN401
    kept = slice(None) if rows is None else rows
    assert got.sequences.tolist() == expected.sequences[kept].tolist()
    for mine, yours in zip(got.logits, expected.logits, strict=True):
        torch.testing.assert_close(mine, yours[kept], rtol=0, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*DECODERS, *PAIRS])
def test_every_cache_and_none_write_the_same(name: str, way: str) -> None:
    expected = write(name, use_cache=False, **WAYS[way])
    assert expected.past_key_values is None
    for settings in ({}, {"cache_implementation": "dynamic"}, {"cache_implementation": "static"}):
        assert_same(write(name, **settings, **WAYS[way]), expected)
    assert_same(write(name, cache_implementation="static", max_cache_len=24, **WAYS[way]), expected)


@pytest.mark.parametrize("name", [*DECODERS, *PAIRS])
def test_a_row_padded_on_the_left_is_the_row_alone(name: str) -> None:
    together = write(name)
    for row in range(3):
        start = 0 if name in PAIRS else int((MASK[row] == 0).sum())
        alone = write(name, PROMPTS[row : row + 1, start:], MASK[row : row + 1, start:])
        assert alone.sequences[0].tolist() == together.sequences[row, start:].tolist()
        for mine, yours in zip(alone.logits, together.logits, strict=True):
            torch.testing.assert_close(mine[0], yours[row], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [*DECODERS, *PAIRS])
def test_beams_of_a_batch_are_beams_alone(name: str) -> None:
    together = write(name, num_beams=3, output_scores=True)
    for row in range(3):
        start = 0 if name in PAIRS else int((MASK[row] == 0).sum())
        alone = write(
            name, PROMPTS[row : row + 1, start:], MASK[row : row + 1, start:], num_beams=3, output_scores=True
        )
        assert alone.sequences[0].tolist() == together.sequences[row, start:].tolist()
        torch.testing.assert_close(alone.sequences_scores[0], together.sequences_scores[row], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [DynamicCache, StaticCache])
@pytest.mark.parametrize("name", DECODERS)
def test_a_text_goes_on_from_its_cache(name: str, kind: type) -> None:
    expected = write(name, max_new_tokens=9).sequences
    for given in ("all", "new"):
        cache = kind() if kind is DynamicCache else kind(config=model(name).config, max_cache_len=20)
        first = write(name, max_new_tokens=4, past_key_values=cache)
        assert first.past_key_values is cache
        assert cache.get_seq_length() == 7
        mask = torch.cat([MASK, torch.ones(3, 4, dtype=torch.int64)], dim=1)
        ids = first.sequences if given == "all" else first.sequences[:, 7:]
        second = write(name, ids, mask, max_new_tokens=5, past_key_values=cache).sequences
        assert second[:, -5:].tolist() == expected[:, -5:].tolist()
        assert cache.get_seq_length() == 12


def test_places_of_an_unpadded_text_go_on_from_its_cache_without_a_mask() -> None:
    ids = PROMPTS[1:2]
    expected = write("gpt2", ids, None, max_new_tokens=6).sequences
    cache = DynamicCache()
    first = write("gpt2", ids, None, max_new_tokens=2, past_key_values=cache).sequences
    assert write("gpt2", first, None, max_new_tokens=4, past_key_values=cache).sequences.tolist() == expected.tolist()


@pytest.mark.parametrize("name", DECODERS)
def test_embeddings_write_what_their_ids_write(name: str) -> None:
    expected = write(name)
    embeds = model(name).get_input_embeddings()(PROMPTS)
    alone = model(name).generate(inputs_embeds=embeds, attention_mask=MASK, max_new_tokens=6, **ENDLESS, **EVERY_STEP)
    assert alone.sequences.tolist() == expected.sequences[:, 4:].tolist()
    both = write(name, inputs_embeds=embeds)
    assert_same(both, expected)


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_a_model_in_training_stays_in_training_and_writes_with_dropout(name: str) -> None:
    trained = model(name)
    trained.train()
    try:
        torch.manual_seed(0)
        first = write(name, output_scores=True).scores[0]
        second = write(name, output_scores=True).scores[0]
        assert trained.training
    finally:
        trained.eval()
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", [*DECODERS, *PAIRS])
def test_scores_have_the_width_of_the_logits(name: str) -> None:
    output = write(name, output_scores=True)
    transition = model(name).compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    expected = torch.stack(
        [
            scores.log_softmax(-1).gather(1, output.sequences[:, step - 6, None]).squeeze(1)
            for step, scores in enumerate(output.scores)
        ],
        dim=1,
    )
    torch.testing.assert_close(transition, expected)


def test_scores_behind_an_end_can_be_masked() -> None:
    written = model("gpt2")
    first = int(write("gpt2").sequences[1, 5])
    before = written.generation_config.eos_token_id
    output = write("gpt2", eos_token_id=first, output_scores=True, min_new_tokens=1)
    written.generation_config.eos_token_id = first
    try:
        scores = written.compute_transition_scores(
            output.sequences, output.scores, normalize_logits=True, mask_finished=True
        )
        unmasked = written.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    finally:
        written.generation_config.eos_token_id = before
    end = output.sequences[1].tolist().index(first) - 4
    assert scores[1, : end + 1].tolist() == unmasked[1, : end + 1].tolist()
    assert (scores[1, end + 1 :] == 0).all()


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_rows_are_put_in_order_once_in_either_cache(name: str) -> None:
    """Beams of two different texts: were the encoder's keys shuffled, another text would be told."""
    texts = write(name, PROMPTS[1:], MASK[1:], num_beams=4, num_return_sequences=4, length_penalty=0.0).sequences
    uncached = write(
        name, PROMPTS[1:], MASK[1:], num_beams=4, num_return_sequences=4, length_penalty=0.0, use_cache=False
    ).sequences
    assert texts.tolist() == uncached.tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_sixteen_bits_write(dtype: torch.dtype) -> None:
    small = CausalLanguageModel.from_config(DECODER_CONFIGS["llama"]).to(dtype).eval()
    output = small.generate(PROMPTS, attention_mask=MASK, num_beams=2, max_new_tokens=3, **ENDLESS, **EVERY_STEP)
    assert output.sequences.shape == (3, 7)
    assert output.logits[0].dtype == torch.float32


@pytest.mark.parametrize("name", [*DECODERS, *PAIRS])
def test_a_model_learns_after_it_has_written(name: str) -> None:  # nothing of inference mode stays behind
    learner = model(name)
    written = learner.generate(PROMPTS, attention_mask=MASK, max_new_tokens=3, **ENDLESS)
    learner.zero_grad()
    labels = {"labels": written} if name in PAIRS else {"labels": PROMPTS}
    learner(input_ids=PROMPTS, attention_mask=MASK, **labels).loss.backward()
    assert all(parameter.grad is not None for parameter in learner.parameters())
    assert sum(float(parameter.grad.abs().sum()) for parameter in learner.parameters()) > 0
    learner.zero_grad()
