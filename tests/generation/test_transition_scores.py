"""Scores of generated tokens: by hand, and sums that give the scores of sequences again."""

from __future__ import annotations

import pytest
import torch

from sparse_encoder.generation import compute_transition_scores

R, P, T, V = 2, 3, 4, 7
EOS = 2


def scores_of(rows: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    draws = torch.randn(T, rows, V, generator=torch.Generator().manual_seed(seed))
    return tuple(draws.unbind())


def test_greedy_by_hand() -> None:
    scores = scores_of(R)
    generated = torch.stack([each.argmax(dim=1) for each in scores], dim=1)
    sequences = torch.cat([torch.zeros(R, P, dtype=torch.long), generated], dim=1)
    found = compute_transition_scores(sequences, scores)
    torch.testing.assert_close(found, torch.stack([each.max(dim=1).values for each in scores], dim=1))
    likely = compute_transition_scores(sequences, scores, normalize_logits=True)
    by_hand = [[scores[step][row].log_softmax(0)[generated[row, step]] for step in range(T)] for row in range(R)]
    torch.testing.assert_close(likely, torch.tensor(by_hand))
    assert (likely.exp() <= 1).all()


def test_the_start_token_of_a_decoder_does_not_count() -> None:
    scores = scores_of(R)
    sequences = torch.tensor([[1, 3, 4, 5, 6], [1, 0, 1, 2, 3]])
    found = compute_transition_scores(sequences, scores)
    assert found.shape == (R, T)
    torch.testing.assert_close(found[1, 2], scores[2][1, 2])


def test_beams_by_hand() -> None:
    scores = scores_of(4)  # two texts of two beams
    sequences = torch.tensor([[9, 1, 3, 5, EOS], [9, 4, 6, EOS, 0]])
    beams = torch.tensor([[0, 1, 1, 0], [2, 3, 2, -1]])
    found = compute_transition_scores(sequences, scores, beams)
    expected = [
        [scores[0][0, 1], scores[1][1, 3], scores[2][1, 5], scores[3][0, EOS]],
        [scores[0][2, 4], scores[1][3, 6], scores[2][2, EOS], 0.0],
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_steps_that_no_result_has_are_cut() -> None:
    scores = scores_of(4)
    sequences = torch.tensor([[9, 1, EOS, 0], [9, 4, 6, EOS]])
    beams = torch.tensor([[0, 1, -1, -1], [2, 3, 2, -1]])
    found = compute_transition_scores(sequences, scores, beams)
    assert found.shape == (2, 3)
    torch.testing.assert_close(found[0], torch.stack([scores[0][0, 1], scores[1][1, EOS], torch.tensor(0.0)]))


@pytest.mark.parametrize("length_penalty", [1.0, 2.0, -1.0])
def test_the_scores_of_beams_are_found_again(length_penalty: float) -> None:
    """A small beam search in plain Python, of one text, is the second implementation."""
    beams, steps, tables = 3, 4, torch.randn(4, V, V, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    alive = [([1], [], 0.0, [])] + [([1], [], -1e9, [])] * (beams - 1)
    scores = []
    for step in range(steps):
        scores.append(torch.stack([tables[step, tokens[-1]] for tokens, *_ in alive]))
        grown = [
            ([*tokens, token], [*rows, row], total + float(scores[-1][row, token]), 0)
            for row, (tokens, rows, total, _) in enumerate(alive)
            for token in range(V)
        ]
        alive = sorted(grown, key=lambda each: -each[2])[:beams]
    sequences = torch.tensor([tokens for tokens, *_ in alive])
    indices = torch.tensor([rows for _, rows, *_ in alive])
    expected = torch.tensor([total / steps**length_penalty for _, _, total, _ in alive])
    found = compute_transition_scores(sequences, tuple(scores), indices)
    torch.testing.assert_close(found.sum(1) / (indices >= 0).sum(1) ** length_penalty, expected)


def test_what_is_behind_the_end_can_be_masked() -> None:
    scores = scores_of(3)
    sequences = torch.tensor([[EOS, 1, EOS, 0, 0], [EOS, 4, 6, 5, EOS], [EOS, EOS, EOS, 3, 0]])
    plain = compute_transition_scores(sequences, scores)
    assert (plain != 0).all()
    found = compute_transition_scores(sequences, scores, mask_finished=True, eos_token_id=EOS)
    is_kept = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.bool)  # the end itself counts
    torch.testing.assert_close(found, torch.where(is_kept, plain, 0.0))
    found = compute_transition_scores(sequences, scores, mask_finished=True, eos_token_id=[EOS, 6])
    assert found[1, 2:].tolist() == [0, 0]
    with pytest.raises(ValueError, match="mask_finished needs eos_token_id"):
        compute_transition_scores(sequences, scores, mask_finished=True)


def test_bad_input_is_named() -> None:
    scores, sequences = scores_of(R), torch.zeros(R, P + T, dtype=torch.long)
    for none in (None, ()):
        with pytest.raises(ValueError, match="scores must hold one tensor for each step; generate with output_scores"):
            compute_transition_scores(sequences, none)
    with pytest.raises(ValueError, match="beam_indices must be given: there are 1 rows, scores of 2"):
        compute_transition_scores(sequences[:1], scores)
    with pytest.raises(ValueError, match="beam_indices must fit sequences of shape"):
        compute_transition_scores(sequences, scores, torch.zeros(R, T + 1, dtype=torch.long))
    with pytest.raises(ValueError, match="beam_indices must fit"):
        compute_transition_scores(sequences, scores, torch.zeros(R + 1, T, dtype=torch.long))
    nothing = torch.full((R, T), -1)
    assert compute_transition_scores(sequences, scores, nothing).shape == (R, 0)


def test_nothing_that_goes_in_is_changed() -> None:
    scores, sequences = scores_of(4), torch.zeros(2, P + T, dtype=torch.long)
    beams = torch.tensor([[0, 1, 1, 0], [2, 3, 2, -1]])
    before = beams.clone(), [each.clone() for each in scores]
    compute_transition_scores(sequences, scores, beams, normalize_logits=True)
    assert torch.equal(beams, before[0])
    assert all(torch.equal(each, other) for each, other in zip(scores, before[1], strict=True))
