"""The books of beam search: which continuations go on, which are done, and when nothing better can come.

Letters: B texts, N beams a text, K candidates a text (a multiple of N), L tokens so far, T written tokens, V
vocabulary. Knows nothing of models.

Source: Sutskever et al., 2014, https://arxiv.org/abs/1409.3215; the bookkeeping is that of transformers 5.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FAR_BELOW = -1.0e9
"""Added to scores that must not win; unlike infinity it keeps their order."""


class Beams(NamedTuple):
    """Hold continuations of B texts, N or K of each."""

    sequences: Tensor
    """Prompt and written tokens, int64, (B, N, L)."""
    scores: Tensor
    """Sums of log-probabilities, float32, (B, N); of finished ones divided by a power of their length."""
    rows: Tensor
    """For each written token the row of the step's scores that it came from, int32, (B, N, T)."""

    def take(self, which: Tensor) -> Beams:
        """Return some continuations of each text; ``which`` is (B, M)."""
        return Beams(gather(self.sequences, which), gather(self.scores, which), gather(self.rows, which))


class Finished(NamedTuple):
    """Hold the best finished continuations of B texts."""

    beams: Beams
    done: Tensor
    """Which of them are finished, and not empty places, (B, N)."""


class BestBeams(NamedTuple):
    """Hold what beam search returns, rows of a text next to each other, best first."""

    sequences: Tensor
    """(B * returned, P + T)."""
    scores: Tensor
    """(B * returned,)."""
    beam_indices: Tensor
    """(B * returned, T)."""


class BeamRules(NamedTuple):
    """Say how beams are scored and when search ends."""

    num_beams: int
    prompt_length: int
    max_length: int
    length_penalty: float
    early_stopping: bool | str


def gather(tensor: Tensor, which: Tensor) -> Tensor:
    """Return rows of the second axis: from (B, N, ...) and (B, M) to (B, M, ...)."""
    if tensor.ndim == 2:
        return tensor.gather(1, which)
    return tensor.gather(1, which[:, :, None].expand(-1, -1, tensor.shape[2]))


def first_beams(ids: Tensor, num_beams: int) -> Beams:
    """Start with one beam a text that counts; the others repeat it and lie far below.

    Args:
        ids: The prompts, each repeated, (B * N, P).
        num_beams: N.
    """
    sequences = ids.view(ids.shape[0] // num_beams, num_beams, ids.shape[1])  # P may be 0
    scores = torch.full(sequences.shape[:2], FAR_BELOW, dtype=torch.float32, device=ids.device)
    scores[:, 0] = 0.0
    return Beams(sequences, scores, sequences.new_empty(*sequences.shape[:2], 0, dtype=torch.int32))


def none_finished(running: Beams) -> Finished:
    """Start without finished continuations."""
    scores = torch.full_like(running.scores, FAR_BELOW)
    done = torch.zeros_like(running.scores, dtype=torch.bool)
    return Finished(Beams(running.sequences, scores, running.rows), done)


def continuations(running: Beams, log_probabilities: Tensor, chosen: tuple[Tensor, Tensor]) -> Beams:
    """Lengthen beams by the chosen tokens.

    Args:
        running: N beams a text.
        log_probabilities: Of the next token, for the size of the vocabulary only, (B * N, V).
        chosen: Accumulated scores and flat places, beam times V plus token, (B, K) each.
    """
    scores, flat = chosen
    vocabulary = log_probabilities.shape[-1]
    beam, token = flat // vocabulary, flat % vocabulary
    batch, num_beams = running.scores.shape
    row = beam + torch.arange(batch, device=beam.device)[:, None] * num_beams
    return Beams(
        torch.cat([gather(running.sequences, beam), token[..., None]], dim=-1),
        scores,
        torch.cat([gather(running.rows, beam), row[..., None].to(torch.int32)], dim=-1),
    )


def best_open(candidates: Beams, stopped: Tensor, num_beams: int) -> Beams:
    """Return the N best candidates that go on; those that stopped, (B, K), lie far below."""
    scores = candidates.scores + stopped * FAR_BELOW
    return candidates._replace(scores=scores).take(scores.topk(num_beams).indices)


def merge_finished(
    finished: Finished, candidates: Beams, stopped: Tensor, hope: Tensor, rules: BeamRules, fill: int
) -> Finished:
    """Put candidates that have just ended among the best finished ones.

    Only those among the first N of the K candidates may finish, and none of a text without hope, nor with
    ``early_stopping`` of a text that has N.

    Args:
        finished: The best so far, of one token less.
        candidates: K a text, best first unless they were drawn.
        stopped: Which have met a criterion, (B, K).
        hope: For which texts something better can come, (B, 1).
        rules: How they are scored.
        fill: Stands behind the end of those that ended before.
    """
    just = stopped & (torch.arange(stopped.shape[1], device=stopped.device) < rules.num_beams)
    written = candidates.sequences.shape[-1] - rules.prompt_length
    scores = candidates.scores / (written**rules.length_penalty)
    if rules.early_stopping is True:
        scores = scores + finished.done.all(dim=-1, keepdim=True) * FAR_BELOW
    scores = scores + ~hope * FAR_BELOW
    scores = scores + ~just * FAR_BELOW
    old = finished.beams
    both = Beams(
        torch.cat([lengthened(old.sequences, fill), candidates.sequences], dim=1),
        torch.cat([old.scores, scores], dim=1),
        torch.cat([lengthened(old.rows, -1), candidates.rows], dim=1),
    )
    which = both.scores.topk(rules.num_beams).indices
    return Finished(both.take(which), gather(torch.cat([finished.done, just], dim=1), which))


def lengthened(tensor: Tensor, fill: int) -> Tensor:
    """Return a tensor (B, N, L) with one more column, of ``fill``."""
    return torch.cat([tensor, tensor.new_full((*tensor.shape[:2], 1), fill)], dim=-1)


def still_hope(hope: Tensor, running: Beams, finished: Finished, rules: BeamRules) -> Tensor:
    """Return for which texts a running beam may still come before the worst finished one; once lost, hope stays lost.

    Args:
        hope: What was so before, (B, 1).
        running: Beams that go on.
        finished: The best finished ones.
        rules: With ``early_stopping="never"`` and a length penalty above 0 the longest possible text counts, else the
            present length.
    """
    longest = rules.early_stopping == "never" and rules.length_penalty > 0
    length = (rules.max_length if longest else running.sequences.shape[-1]) - rules.prompt_length
    divisor: float = length**rules.length_penalty
    best = running.scores[:, :1] / divisor  # (B, 1)
    worst = torch.where(finished.done, finished.beams.scores.amin(dim=1, keepdim=True), FAR_BELOW)  # (B, N)
    return hope & (best > worst).any(dim=-1, keepdim=True)


def goes_on(hope: Tensor, finished: Finished, stopped: Tensor, rules: BeamRules) -> Tensor:
    """Return whether another step can change anything, for all texts together, a scalar."""
    on: Tensor = hope.any() & ~stopped.all()
    if rules.early_stopping is True:
        on = on & ~finished.done.all()
    return on
