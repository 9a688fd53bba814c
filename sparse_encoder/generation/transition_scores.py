"""How likely each generated token was, out of what `generate` returns. Works on tensors alone.

Letters: R rows of a result, S rows of the scores (texts times beams), P tokens of the prompt, T generated tokens, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparse_encoder.generation.processors import token_ids


def compute_transition_scores(
    sequences: Tensor,
    scores: Sequence[Tensor] | None,
    beam_indices: Tensor | None = None,
    normalize_logits: bool = False,
    *,
    mask_finished: bool = False,
    eos_token_id: int | Sequence[int] | Tensor | None = None,
) -> Tensor:
    """Pick the score of each generated token.

    The results of beam search can be scored again: ``sequences_scores`` is the sum of a row divided by a power of its
    number of generated tokens, ``transition.sum(1) / (beam_indices >= 0).sum(1) ** length_penalty``. The prompt does
    not count. (The documentation of transformers 4.37 counts it, its code does not.)

    Args:
        sequences: Prompt and generated tokens, (R, P + T).
        scores: For each step the scores of the next token, (S, V) each; needs ``output_scores=True``.
        beam_indices: Rows of the scores that each token was chosen from, below 0 behind the end, (R, T). None for
            greedy search and sampling: each row its own.
        normalize_logits: Turn scores into log-probabilities first.
        mask_finished: Set what is behind the end of a text to 0. Else, without ``beam_indices``, padding has the scores
            of its token, and sums over them mean nothing. With them all behind the end is 0 in any case.
        eos_token_id: Ends of texts, for ``mask_finished``.

    Returns:
        float, (R, T).

    Raises:
        ValueError: If there are no scores, shapes do not go together, or ``mask_finished`` lacks ``eos_token_id``.
    """
    if not scores:
        raise ValueError("scores must hold one tensor for each step; generate with output_scores=True")
    if beam_indices is None:
        if len(sequences) != len(scores[0]):
            raise ValueError(f"beam_indices must be given: there are {len(sequences)} rows, scores of {len(scores[0])}")
        beam_indices = torch.arange(len(sequences), device=sequences.device).unsqueeze(1).expand(-1, len(scores))
    is_behind = beam_indices < 0
    steps = int((~is_behind).sum(dim=1).max())
    if steps > min(len(scores), sequences.shape[1]) or len(beam_indices) != len(sequences):
        raise ValueError(
            f"beam_indices must fit sequences of shape {tuple(sequences.shape)} and scores of {len(scores)} steps, got "
            f"shape {tuple(beam_indices.shape)}"
        )
    is_behind, rows = is_behind[:, :steps], beam_indices[:, :steps].clamp(min=0)
    tokens = sequences[:, sequences.shape[1] - steps :]
    if mask_finished:
        if eos_token_id is None:
            raise ValueError("mask_finished needs eos_token_id, the tokens that end a text")
        is_end = torch.isin(tokens, token_ids("eos_token_id", eos_token_id, tokens.device))
        is_behind = is_behind | (is_end.cumsum(dim=1) - is_end.long() > 0)
    picked = [_pick(scores[step], rows[:, step], tokens[:, step], normalize_logits) for step in range(steps)]
    transition = torch.stack(picked, dim=1) if picked else scores[0].new_zeros(len(sequences), 0)
    return transition.masked_fill(is_behind, 0)


def _pick(scores: Tensor, rows: Tensor, tokens: Tensor, normalize: bool) -> Tensor:
    """Return one score for each row of the result, (R,); one step at a time, as all of them may be large."""
    return (scores.log_softmax(dim=-1) if normalize else scores)[rows, tokens]
