"""A config becomes processors in the documented order; a call's own find their place."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from sparse_encoder.generation import (
    GenerationConfig,
    LogitsProcessor,
    MinLengthLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
)
from sparse_encoder.generation.processors_building import ProcessorFacts, build_logits_processors

PROMPT = torch.tensor([[7, 7, 1], [1, 4, 1]])
MASK = torch.tensor([[0, 0, 1], [1, 1, 1]])
FACTS = ProcessorFacts(prompt_length=3, encoder_input_ids=PROMPT, attention_mask=MASK, eos_token_id=torch.tensor([5]))


def names(config: GenerationConfig, facts: ProcessorFacts = FACTS) -> list[str]:
    found = build_logits_processors(config, facts)
    return [type(each).__name__ for each in found]


def everything() -> GenerationConfig:
    return GenerationConfig(
        do_sample=True,
        max_length=9,
        sequence_bias={(1,): 1.0},
        encoder_repetition_penalty=1.5,
        repetition_penalty=2,
        no_repeat_ngram_size=2,
        encoder_no_repeat_ngram_size=2,
        bad_words_ids=[[1, 2]],
        min_length=5,
        min_new_tokens=1,
        forced_bos_token_id=1,
        forced_eos_token_id=5,
        remove_invalid_values=True,
        exponential_decay_length_penalty=(1, 1.5),
        suppress_tokens=[3],
        begin_suppress_tokens=[4],
        temperature=2,
        top_h=0.9,
        top_k=3,
        top_p=0.9,
        min_p=0.1,
        typical_p=0.9,
        epsilon_cutoff=0.1,
        eta_cutoff=0.1,
        renormalize_logits=True,
    )


class Own(LogitsProcessor):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores


def test_the_documented_order() -> None:
    found = build_logits_processors(everything(), FACTS, lambda text, ids: [1], [Own()])
    assert [type(each).__name__ for each in found] == [
        "SequenceBiasLogitsProcessor",
        "EncoderRepetitionPenaltyLogitsProcessor",
        "RepetitionPenaltyLogitsProcessor",
        "NoRepeatNGramLogitsProcessor",
        "EncoderNoRepeatNGramLogitsProcessor",
        "NoBadWordsLogitsProcessor",
        "MinLengthLogitsProcessor",
        "MinNewTokensLengthLogitsProcessor",
        "PrefixConstrainedLogitsProcessor",
        "ForcedBOSTokenLogitsProcessor",
        "ForcedEOSTokenLogitsProcessor",
        "InfNanRemoveLogitsProcessor",
        "ExponentialDecayLengthPenalty",
        "SuppressTokensLogitsProcessor",
        "SuppressTokensAtBeginLogitsProcessor",
        "Own",
        "TemperatureLogitsWarper",
        "TopHLogitsWarper",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
        "MinPLogitsWarper",
        "TypicalLogitsWarper",
        "EpsilonLogitsWarper",
        "EtaLogitsWarper",
        "LogitNormalization",
    ]


def test_nothing_is_made_of_nothing() -> None:
    assert names(GenerationConfig()) == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        idle = GenerationConfig(temperature=0.5, top_k=3, top_p=0.5)
    assert names(idle) == []  # nothing is drawn
    neutral = GenerationConfig(
        do_sample=True,
        repetition_penalty=1,
        encoder_repetition_penalty=1,
        no_repeat_ngram_size=0,
        encoder_no_repeat_ngram_size=0,
        min_length=0,
        min_new_tokens=0,
        temperature=1,
        top_k=0,
        top_p=1,
        typical_p=1,
        epsilon_cutoff=0,
        eta_cutoff=0,
        remove_invalid_values=False,
        renormalize_logits=False,
    )
    assert names(neutral) == []


def test_without_ends_of_texts() -> None:
    facts = FACTS._replace(eos_token_id=None)
    assert names(GenerationConfig(min_length=5, min_new_tokens=3), facts) == []
    with pytest.raises(ValueError, match="exponential_decay_length_penalty needs eos_token_id"):
        names(GenerationConfig(exponential_decay_length_penalty=(1, 1.5)), facts)
    with pytest.raises(ValueError, match="forced_eos_token_id needs max_length"):
        names(GenerationConfig(forced_eos_token_id=5))


def test_embeddings_have_no_tokens() -> None:
    facts = FACTS._replace(prompt_length=0, encoder_input_ids=None)
    for field in ("encoder_repetition_penalty", "encoder_no_repeat_ngram_size"):
        with pytest.warns(UserWarning, match=f"{field} needs the tokens of the input"):
            assert names(GenerationConfig(**{field: 2}), facts) == []
    for field in ("repetition_penalty", "no_repeat_ngram_size"):
        with pytest.warns(UserWarning, match=f"embeddings: {field} counts only the generated"):
            assert len(names(GenerationConfig(**{field: 2}), facts)) == 1


def test_padding_is_not_penalised() -> None:
    (penalty,) = build_logits_processors(GenerationConfig(repetition_penalty=2.0), FACTS)
    found = penalty(PROMPT, torch.ones(2, 8))
    assert found.tolist() == [[1, 0.5, 1, 1, 1, 1, 1, 1], [1, 0.5, 1, 1, 0.5, 1, 1, 1]]


def test_beams_keep_one_more_than_there_are_ends() -> None:
    config = GenerationConfig(do_sample=True, num_beams=2, top_k=1)
    for ends, expected in ((None, 2), (torch.tensor([5]), 2), (torch.tensor([5, 6, 7]), 4)):
        (warper,) = build_logits_processors(config, FACTS._replace(eos_token_id=ends))
        assert isinstance(warper, TopKLogitsWarper)
        assert warper.top_k == expected


def test_the_begin_is_behind_a_forced_token() -> None:
    for prompt, forced, expected in ((3, 1, 3), (1, None, 1), (1, 1, 2)):
        config = GenerationConfig(begin_suppress_tokens=[4], forced_bos_token_id=forced)
        found = build_logits_processors(config, FACTS._replace(prompt_length=prompt))[-1]
        assert found.begin_index == expected  # type: ignore[attr-defined]


def test_one_of_the_same_type_takes_the_place() -> None:
    config = GenerationConfig(min_length=5, suppress_tokens=[3], do_sample=True, temperature=0.5)
    mine, other = MinLengthLogitsProcessor(2, 1), Own()
    with pytest.warns(UserWarning, match="the logits processor MinLengthLogitsProcessor of the call takes the place"):
        found = build_logits_processors(config, FACTS, custom=[other, mine])
    assert found[0] is mine
    assert found[2] is other
    assert isinstance(found[3], TemperatureLogitsWarper)
    assert len(found) == 4
    warm = TemperatureLogitsWarper(3.0)  # those for sampling are made after the call's own: both run
    found = build_logits_processors(config, FACTS, custom=[warm])
    assert found[2] is warm
    assert isinstance(found[3], TemperatureLogitsWarper)


def test_values_out_of_range_are_named() -> None:
    for field, value in (("temperature", 0), ("top_k", -1), ("top_p", 1.5), ("min_p", 2), ("typical_p", -1)):
        with pytest.raises(ValueError, match=field):
            names(GenerationConfig(do_sample=True, **{field: value}))
    with pytest.raises(ValueError, match="penalty"):
        names(GenerationConfig(repetition_penalty=-1))


def test_what_a_call_brings_twice_runs_once() -> None:
    def one_more(ids: Tensor, scores: Tensor) -> Tensor:
        return scores + 1

    processors = build_logits_processors(GenerationConfig(), FACTS, None, [one_more, one_more])
    assert processors == [one_more]
