"""Beam search and beam sampling over a table of logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from generate_helpers import TableModel, random_table
from torch import Tensor

from sparse_encoder.generation.outputs import GenerateBeamDecoderOnlyOutput

V = 11
END = 5
PROMPTS = torch.tensor([[3, 1], [2, 4], [7, 8]])
DICT = {"return_dict_in_generate": True, "output_scores": True}


def ending_table(bias: float = 1.0, seed: int = 0) -> Tensor:
    table = random_table(V, seed)
    table[:, END] += bias
    return table


def search(model: TableModel, **settings: Any) -> GenerateBeamDecoderOnlyOutput:  # noqa: ANN401
    output = model.generate(PROMPTS, **{**DICT, "num_beams": 3, "max_new_tokens": 6, **settings})
    assert isinstance(output, GenerateBeamDecoderOnlyOutput)
    return output


def log_probability(table: Tensor, text: list[int], prompt_length: int, end: int | None = END) -> tuple[float, int]:
    """Return the sum over written tokens up to the first end, and their number."""
    total, count = 0.0, 0
    for previous, token in zip(text[prompt_length - 1 :], text[prompt_length:], strict=False):
        total += float(table[previous].log_softmax(-1)[token])
        count += 1
        if token == end:
            break
    return total, count


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_scores_are_sums_of_log_probabilities_over_written_tokens(length_penalty: float) -> None:
    table = ending_table()
    model = TableModel(table, eos_token_id=END, pad_token_id=9)
    output = search(model, length_penalty=length_penalty, num_return_sequences=2)
    assert output.sequences_scores is not None
    for row, score in zip(output.sequences.tolist(), output.sequences_scores.tolist(), strict=True):
        total, count = log_probability(table, row, 2)
        assert score == pytest.approx(total / count**length_penalty, abs=1e-5)


def test_results_of_a_text_stand_next_to_each_other_best_first() -> None:
    model = TableModel(ending_table(), eos_token_id=END, pad_token_id=9)
    output = search(model, num_return_sequences=3)
    assert output.sequences[:, :2].tolist() == [prompt for prompt in PROMPTS.tolist() for _ in range(3)]
    scores = output.sequences_scores.view(3, 3)
    assert (scores[:, :-1] >= scores[:, 1:]).all()


def test_texts_of_a_batch_are_independent() -> None:
    table = ending_table(0.3)
    settings = {"early_stopping": True, "num_return_sequences": 2, "max_new_tokens": 6}
    model = TableModel(table, eos_token_id=END, pad_token_id=9)
    together = search(model, **settings)
    for number, prompt in enumerate(PROMPTS):
        alone = model.generate(prompt[None], **{**DICT, "num_beams": 3, **settings})
        for row in range(2):
            long, short = together.sequences[2 * number + row].tolist(), alone.sequences[row].tolist()
            assert long[: len(short)] == short
            assert long[len(short) :] == [9] * (len(long) - len(short))
            assert together.sequences_scores[2 * number + row] == alone.sequences_scores[row]


def test_one_beam_of_two_finds_at_least_what_greedy_search_finds() -> None:
    table = random_table(V)
    greedy = TableModel(table).generate(PROMPTS, max_new_tokens=5)
    beams = TableModel(table).generate(PROMPTS, max_new_tokens=5, num_beams=8)
    for first, second in zip(greedy.tolist(), beams.tolist(), strict=True):
        assert log_probability(table, second, 2, None)[0] >= log_probability(table, first, 2, None)[0]


def test_short_results_are_filled_with_padding_even_if_it_is_token_0() -> None:
    table = torch.full((V, V), -9.0)
    table[:, END], table[:, 1] = 2.0, 1.0
    table[1, END] = -5.0
    model = TableModel(table, eos_token_id=END, pad_token_id=0)
    written = model.generate(torch.tensor([[3]]), num_beams=2, num_return_sequences=2, max_new_tokens=5)
    rows = sorted(written.tolist(), key=lambda row: row.index(END) if END in row else 99)
    assert rows[0][:2] == [3, END]
    assert set(rows[0][2:]) == {0}


def test_without_end_tokens_and_padding_what_is_behind_a_criterion_is_no_token() -> None:
    table = torch.full((V, V), -9.0)
    table[:, 4], table[:, 1] = 2.0, 1.0
    table[1, 4] = -5.0

    def at_four(ids: Tensor, scores: object) -> Tensor:
        return ids[:, -1] == 4

    written = TableModel(table).generate(
        torch.tensor([[3]]), num_beams=2, num_return_sequences=2, max_new_tokens=5, stopping_criteria=[at_four]
    )
    shortest = min(written.tolist(), key=lambda row: row.index(4) if 4 in row else 99)
    assert shortest[:2] == [3, 4]
    assert set(shortest[2:]) == {-1}


def test_criteria_see_every_candidate_and_scores_only_if_these_are_kept() -> None:
    seen: list[tuple[tuple[int, ...], bool]] = []

    def watches(ids: Tensor, scores: tuple[Tensor, ...] | None) -> Tensor:
        seen.append((tuple(ids.shape), scores is None))
        return torch.zeros(len(ids), dtype=torch.bool)

    for ends, scores_kept in (([END], True), ([END, 6, 7], False)):
        seen.clear()
        model = TableModel(random_table(V), eos_token_id=ends, pad_token_id=9)
        model.generate(
            PROMPTS,
            num_beams=2,
            max_new_tokens=2,
            stopping_criteria=[watches],
            return_dict_in_generate=True,
            output_scores=scores_kept,
        )
        candidates = max(2, 1 + len(ends)) * 2
        assert seen[0] == ((3 * candidates, 3), not scores_kept)


def test_a_candidate_behind_the_first_n_does_not_finish() -> None:
    table = torch.full((V, V), -30.0)
    table[:, 1], table[:, 2], table[:, END] = 2.0, 1.9, 1.0  # the end is third with two beams
    model = TableModel(table, eos_token_id=END, pad_token_id=9)
    output = model.generate(torch.tensor([[3]]), num_beams=2, max_new_tokens=4, **DICT)
    assert END not in output.sequences[0, 2:3].tolist()
    assert output.sequences.shape == (1, 5)


def test_beam_indices_lead_back_to_the_scores() -> None:
    model = TableModel(ending_table(), eos_token_id=END, pad_token_id=9)
    output = search(model, num_return_sequences=2, length_penalty=2.0, repetition_penalty=1.3)
    transition = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
    count = (output.beam_indices >= 0).sum(1)
    torch.testing.assert_close(transition.sum(1) / count**2.0, output.sequences_scores)
    assert output.beam_indices.dtype == torch.int32


def test_beam_indices_are_there_without_scores_and_scores_of_results_are_not() -> None:
    output = TableModel(random_table(V)).generate(PROMPTS, num_beams=2, max_new_tokens=2, return_dict_in_generate=True)
    assert output.sequences_scores is None
    assert output.beam_indices.shape == (3, 2)


def test_the_cache_follows_the_beams() -> None:
    model = TableModel(random_table(V))
    output = search(model, max_new_tokens=5)
    cache = output.past_key_values
    assert len(cache.reordered) == 5  # once a step
    ways = {tuple(row) for row in cache.history.tolist()}  # what each running beam has read
    assert all(list(way[:2]) in PROMPTS.tolist() for way in ways)
    for call in model.calls[1:]:
        assert call["input_ids"].shape == (9, 1)
    best = output.sequences[:, :-1].tolist()
    assert all(tuple(row) in ways or row[:-1] in [list(way)[: len(row) - 1] for way in ways] for row in best)


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
def test_search_ends_before_the_length_when_nothing_better_can_come(early_stopping: bool | str) -> None:
    table = torch.full((V, V), -9.0)
    table[:, END], table[:, 1], table[:, 2] = 4.0, 3.0, 2.0
    model = TableModel(table, eos_token_id=END, pad_token_id=9)
    model.generate(torch.tensor([[3]]), num_beams=2, max_new_tokens=30, early_stopping=early_stopping)
    steps = len(model.calls)
    assert steps < 30
    never = TableModel(table, eos_token_id=END, pad_token_id=9)
    never.generate(torch.tensor([[3]]), num_beams=2, max_new_tokens=30, early_stopping="never")
    assert steps <= len(never.calls)


def test_a_tail_of_more_end_tokens_than_the_vocabulary_holds_is_refused() -> None:
    model = TableModel(torch.zeros(2, 2), eos_token_id=[0, 1], pad_token_id=0)
    with pytest.raises(ValueError, match="name fewer eos_token_id"):
        model.generate(torch.tensor([[1]]), num_beams=2, max_new_tokens=2)


def test_drawn_beams_follow_a_seed() -> None:
    model = TableModel(ending_table(), eos_token_id=END, pad_token_id=9)
    texts = [
        search(model, do_sample=True, generator=torch.Generator().manual_seed(seed)).sequences.tolist()
        for seed in (1, 1, 2, 3)
    ]
    assert texts[0] == texts[1]
    assert texts[2] != texts[0] or texts[3] != texts[0]


def test_processors_work_on_log_probabilities_before_beams_are_added() -> None:
    heard: list[Tensor] = []

    def listens(ids: Tensor, scores: Tensor) -> Tensor:
        heard.append(scores.clone())
        return scores

    table = random_table(V)
    TableModel(table).generate(PROMPTS, num_beams=2, max_new_tokens=3, logits_processor=[listens])
    for scores in heard:
        torch.testing.assert_close(scores.exp().sum(-1), torch.ones(6))
