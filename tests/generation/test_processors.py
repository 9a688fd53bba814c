"""Processors by hand: values, edges, bad input and laws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_encoder.generation import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    ExponentialDecayLengthPenalty,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    InfNanRemoveLogitsProcessor,
    LogitNormalization,
    LogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

SCORES = torch.tensor([[2.0, 1, 1, 0.5, -1, -3]])
IDS = torch.tensor([[1, 4, 1]])


def banned(scores: Tensor, row: int = 0) -> list[int]:
    return scores[row].isneginf().nonzero().flatten().tolist()


@pytest.mark.parametrize("penalty", [1.5])
def test_repetition_by_hand(penalty: float) -> None:
    found = RepetitionPenaltyLogitsProcessor(penalty)(IDS, SCORES)
    torch.testing.assert_close(found, torch.tensor([[2.0, 1 / 1.5, 1, 0.5, -1.5, -3]]))


def test_integer_penalties_are_numbers() -> None:
    found = RepetitionPenaltyLogitsProcessor(2)(IDS, SCORES)
    torch.testing.assert_close(found, torch.tensor([[2.0, 0.5, 1, 0.5, -2, -3]]))
    found = EncoderRepetitionPenaltyLogitsProcessor(2, IDS)(IDS, SCORES)
    torch.testing.assert_close(found, torch.tensor([[2.0, 2, 1, 0.5, -0.5, -3]]))


def test_padding_on_the_left_is_not_penalised() -> None:
    ids, scores = torch.tensor([[5, 5, 1], [1, 4, 1]]), SCORES.repeat(2, 1)
    found = RepetitionPenaltyLogitsProcessor(2.0, prompt_ignore_length=torch.tensor([2, 0]))(ids, scores)
    torch.testing.assert_close(found, torch.tensor([[2.0, 0.5, 1, 0.5, -1, -3], [2.0, 0.5, 1, 0.5, -2, -3]]))
    found = RepetitionPenaltyLogitsProcessor(2.0, prompt_ignore_length=1)(IDS, SCORES)
    torch.testing.assert_close(found, torch.tensor([[2.0, 0.5, 1, 0.5, -2, -3]]))
    with pytest.raises(ValueError, match="prompt_ignore_length must have 1 rows, got 2"):
        RepetitionPenaltyLogitsProcessor(2.0, prompt_ignore_length=torch.tensor([2, 0]))(IDS, SCORES)


def test_ngrams_by_hand() -> None:
    assert banned(NoRepeatNGramLogitsProcessor(2)(IDS, SCORES)) == [4]
    assert banned(NoRepeatNGramLogitsProcessor(1)(IDS, SCORES)) == [1, 4]
    assert banned(NoRepeatNGramLogitsProcessor(3)(IDS, SCORES)) == []
    assert NoRepeatNGramLogitsProcessor(4)(IDS, SCORES) is SCORES
    source = torch.tensor([[1, 3, 1, 5], [4, 1, 2, 0]])
    rows, scores = torch.tensor([[0, 1], [2, 3], [4, 1], [0, 1]]), SCORES.repeat(4, 1)
    found = EncoderNoRepeatNGramLogitsProcessor(2, source)(rows, scores)
    assert [banned(found, row) for row in range(4)] == [[3, 5], [1], [2], [2]]
    found = EncoderNoRepeatNGramLogitsProcessor(3, source[1])(rows, scores)
    assert [banned(found, row) for row in range(4)] == [[], [], [2], []]
    with pytest.raises(ValueError, match="encoder_input_ids must have rows that divide 3, got 2"):
        EncoderNoRepeatNGramLogitsProcessor(2, source)(rows[:3], scores[:3])


def test_bad_words_by_hand() -> None:
    assert banned(NoBadWordsLogitsProcessor([[1, 3], [0], [5]], 5)(IDS, SCORES)) == [0, 3]
    assert banned(NoBadWordsLogitsProcessor([[1, 3], [0], [5]])(IDS, SCORES)) == [0, 3, 5]
    assert banned(NoBadWordsLogitsProcessor([[4, 3], [1, 4, 1, 2]])(IDS, SCORES)) == [2]
    assert NoBadWordsLogitsProcessor([[5], [2]], torch.tensor([5, 2]))(IDS, SCORES) is SCORES
    with pytest.raises(ValueError, match="^bad_words_ids must hold ids below 6, the vocabulary; got 99"):
        NoBadWordsLogitsProcessor([[99]])(IDS, SCORES)


def test_biases_by_hand() -> None:
    bias = SequenceBiasLogitsProcessor({(0,): 1, (4, 1, 0): 2.0, (4, 1, 3): -1.5, (4, 3): 9.0, (0, 0, 0, 0, 1): 7.0})
    torch.testing.assert_close(bias(IDS, SCORES), torch.tensor([[5.0, 1, 1, -1, -1, -3]]))
    torch.testing.assert_close(bias(IDS, SCORES), torch.tensor([[5.0, 1, 1, -1, -1, -3]]))  # nothing adds up
    with pytest.raises(ValueError, match="sequence_bias must hold ids below 6, the vocabulary; got 6"):
        SequenceBiasLogitsProcessor([[[1, 6], 1.0]])(IDS, SCORES)


def test_lengths_by_hand() -> None:
    for ends in (3, [3], torch.tensor([3])):
        assert banned(MinLengthLogitsProcessor(4, ends)(IDS, SCORES)) == [3]
        assert MinLengthLogitsProcessor(3, ends)(IDS, SCORES) is SCORES
        assert banned(MinNewTokensLengthLogitsProcessor(2, 2, ends)(IDS, SCORES)) == [3]
        assert MinNewTokensLengthLogitsProcessor(2, 1, ends)(IDS, SCORES) is SCORES
    assert banned(MinLengthLogitsProcessor(4, [3, 0, 99])(IDS, SCORES)) == [0, 3]


def test_forced_tokens_by_hand() -> None:
    inf = torch.inf
    forced = torch.tensor([[-inf, -inf, -inf, -inf, 0, -inf]])
    assert torch.equal(ForcedBOSTokenLogitsProcessor(4)(IDS[:, :1], SCORES), forced)
    assert ForcedBOSTokenLogitsProcessor(4)(IDS, SCORES) is SCORES
    assert torch.equal(ForcedEOSTokenLogitsProcessor(4, 4)(IDS, SCORES), forced)
    assert ForcedEOSTokenLogitsProcessor(5, 4)(IDS, SCORES) is SCORES
    assert ForcedEOSTokenLogitsProcessor(4, [4, 0])(IDS, SCORES).tolist() == [[0, -inf, -inf, -inf, 0, -inf]]
    with pytest.raises(ValueError, match="forced_bos_token_id must be below 6, the vocabulary; got 6"):
        ForcedBOSTokenLogitsProcessor(6)(IDS[:, :1], SCORES)
    with pytest.raises(ValueError, match="forced_eos_token_id must be below 6, the vocabulary; got 9"):
        ForcedEOSTokenLogitsProcessor(4, [1, 9])(IDS, SCORES)


def test_decay_by_hand() -> None:
    decay = ExponentialDecayLengthPenalty((1, 2.0), [0, 4, 5], 0)
    assert decay(IDS[:, :1], SCORES) is SCORES
    assert decay(IDS[:, :2], SCORES).tolist() == [[4, 1, 1, 0.5, 0, 0]]
    assert decay(IDS, SCORES).tolist() == [[8, 1, 1, 0.5, 2, 6]]
    scores = torch.tensor([[-torch.inf, 1.0, 1.0, 1.0, torch.inf, 1.0]])
    assert decay(IDS, scores).tolist() == [[-torch.inf, 1, 1, 1, torch.inf, 4]]


def test_suppressed_tokens_by_hand() -> None:
    assert banned(SuppressTokensLogitsProcessor([0, 2, 77])(IDS, SCORES)) == [0, 2]
    assert banned(SuppressTokensLogitsProcessor([])(IDS, SCORES)) == []
    assert banned(SuppressTokensAtBeginLogitsProcessor([0, 2], 3)(IDS, SCORES)) == [0, 2]
    assert SuppressTokensAtBeginLogitsProcessor([0, 2], 2)(IDS, SCORES) is SCORES


def test_allowed_tokens_by_hand() -> None:
    asked: list[tuple[int, list[int]]] = []

    def allowed(text: int, ids: Tensor) -> list[int] | Tensor:
        asked.append((text, ids.tolist()))
        return torch.tensor([text, 2]) if text else [4]

    ids, scores = torch.tensor([[1], [2], [3], [4]]), SCORES.repeat(4, 1)
    found = PrefixConstrainedLogitsProcessor(allowed, 2)(ids, scores)
    assert asked == [(0, [1]), (0, [2]), (1, [3]), (1, [4])]
    assert found[0].tolist() == [-torch.inf] * 4 + [-1, -torch.inf]
    assert found[3].tolist() == [-torch.inf, 1, 1, *[-torch.inf] * 3]
    scores[:2, 4] = -torch.inf  # no beam of the first text has anything left: all start anew
    found = PrefixConstrainedLogitsProcessor(allowed, 2)(ids, scores)
    assert found[:2].tolist() == [[-torch.inf] * 4 + [0, -torch.inf]] * 2
    scores[0, 4] = 7  # one has: the other stays without
    found = PrefixConstrainedLogitsProcessor(allowed, 2)(ids, scores)
    assert banned(found, 1) == list(range(6))
    for wrong in ([], [6], [-1]):
        with pytest.raises(ValueError, match="prefix_allowed_tokens_fn"):
            PrefixConstrainedLogitsProcessor(lambda text, row, wrong=wrong: wrong, 2)(ids, scores)


def test_scores_are_mended() -> None:
    scores = torch.tensor([[torch.nan, torch.inf, -torch.inf, 0.5]])
    largest = torch.finfo(torch.float32).max
    assert InfNanRemoveLogitsProcessor()(IDS, scores).tolist() == [[0, largest, -largest, 0.5]]
    found = LogitNormalization()(IDS, torch.tensor([[0.0, 0.0, -torch.inf]]))
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5, 0]]).log())


class Adding(LogitsProcessor):
    def __init__(self, amount: float) -> None:
        self.amount = amount

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores + self.amount


def scaled(input_ids: Tensor, scores: Tensor, factor: float, offset: float = 0.0) -> Tensor:
    return scores * factor + offset


def test_lists_run_in_order_and_hand_on_what_is_asked_for() -> None:
    processors = LogitsProcessorList([Adding(1), scaled, lambda ids, scores: scores - 1])
    torch.testing.assert_close(processors(IDS, SCORES, factor=2.0, unused=3), (SCORES + 1) * 2 - 1)
    torch.testing.assert_close(processors(IDS, SCORES, factor=2.0, offset=5.0), (SCORES + 1) * 2 + 4)
    assert LogitsProcessorList()(IDS, SCORES) is SCORES
    message = r"scaled needs the arguments \['factor', 'offset'\]; missing are \['factor'\]"
    with pytest.raises(ValueError, match=message):
        processors(IDS, SCORES)
    with pytest.raises(TypeError, match="LogitsProcessor must define __call__"):
        LogitsProcessor()(IDS, SCORES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RepetitionPenaltyLogitsProcessor(0), "penalty must be a finite number greater than 0, got 0"),
        (lambda: RepetitionPenaltyLogitsProcessor("1"), "penalty must"),
        (lambda: RepetitionPenaltyLogitsProcessor(True), "penalty must"),
        (lambda: RepetitionPenaltyLogitsProcessor(1.5, -1), "prompt_ignore_length must be an integer of at least 0"),
        (lambda: RepetitionPenaltyLogitsProcessor(1.5, torch.zeros(2, 2)), "prompt_ignore_length must have one axis"),
        (lambda: EncoderRepetitionPenaltyLogitsProcessor(-1.0, IDS), "penalty must"),
        (lambda: NoRepeatNGramLogitsProcessor(0), "ngram_size must be an integer of at least 1, got 0"),
        (lambda: EncoderNoRepeatNGramLogitsProcessor(1.5, IDS), "encoder_ngram_size must"),
        (lambda: NoBadWordsLogitsProcessor([]), "bad_words_ids must"),
        (lambda: NoBadWordsLogitsProcessor([[]]), "bad_words_ids must"),
        (lambda: NoBadWordsLogitsProcessor([3]), "bad_words_ids must"),
        (lambda: NoBadWordsLogitsProcessor([[-3]]), "bad_words_ids must"),
        (lambda: SequenceBiasLogitsProcessor({}), "sequence_bias must"),
        (lambda: SequenceBiasLogitsProcessor({1: 2.0}), "sequence_bias must"),
        (lambda: SequenceBiasLogitsProcessor({(1,): "a"}), "sequence_bias must"),
        (lambda: MinLengthLogitsProcessor(-1, 3), "min_length must"),
        (lambda: MinLengthLogitsProcessor(1, 1.5), "eos_token_id"),
        (lambda: MinLengthLogitsProcessor(1, -1), "eos_token_id must hold ids of at least 0, got -1"),
        (lambda: MinNewTokensLengthLogitsProcessor(1, -1, 3), "min_new_tokens must"),
        (lambda: ForcedEOSTokenLogitsProcessor(3, []), "forced_eos_token_id must hold at least one id"),
        (lambda: ForcedEOSTokenLogitsProcessor(3, torch.tensor([0.5])), "forced_eos_token_id must"),
        (lambda: ForcedBOSTokenLogitsProcessor(-1), "forced_bos_token_id must"),
        (lambda: ExponentialDecayLengthPenalty((1, 0.0), 3, 1), "the factor of exponential_decay_length_penalty must"),
        (lambda: SuppressTokensLogitsProcessor(["a"]), "suppress_tokens must"),
        (lambda: PrefixConstrainedLogitsProcessor(print, 0), "num_beams must"),
    ],
)
def test_bad_arguments_are_named(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 4), tokens=st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_nothing_but_repeated_ngrams_is_banned(size: int, tokens: list[int]) -> None:
    found = banned(NoRepeatNGramLogitsProcessor(size)(torch.tensor([tokens]), torch.zeros(1, 5)))
    seen = {tuple(tokens[place : place + size]) for place in range(len(tokens) - size + 1)}
    expected = [token for token in range(5) if tuple([*tokens, token][-size:]) in seen and len(tokens) >= size]
    assert found == expected


def test_sixteen_bits_are_kept() -> None:
    scores = SCORES.to(torch.bfloat16)
    for processor in (
        RepetitionPenaltyLogitsProcessor(1.5),
        SequenceBiasLogitsProcessor({(1,): 2.0}),
        NoRepeatNGramLogitsProcessor(2),
    ):
        assert processor(IDS, scores).dtype == torch.bfloat16
