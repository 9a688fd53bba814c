"""Beam search and beam sampling: the loop. The books are kept in `beams`; knows nothing of how a call is prepared.

Letters: B texts, N beams, K candidates, V vocabulary, R = B * N rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_encoder.generation.beams import (
    BeamRules,
    Beams,
    BestBeams,
    best_open,
    continuations,
    first_beams,
    goes_on,
    merge_finished,
    none_finished,
    still_hope,
)
from sparse_encoder.generation.protocol import GenerativeModel
from sparse_encoder.generation.records import Records
from sparse_encoder.generation.steps import ModelSteps
from sparse_encoder.generation.task import Task, processed


def write_beams(model: GenerativeModel, task: Task, records: Records) -> BestBeams:
    """Keep the best beams of each text until nothing better can come.

    Args:
        model: What gives logits.
        task: What is to be written; its inputs repeat each text for N beams.
        records: What is kept of each step.
    """
    steps = ModelSteps(model, task.inputs, records.wanted)
    rules = beam_rules(task)
    running = first_beams(task.inputs.ids, rules.num_beams)
    finished = none_finished(running)
    hope = torch.ones(running.scores.shape[0], 1, dtype=torch.bool, device=running.scores.device)
    while True:
        ids = running.sequences.flatten(0, 1)  # (R, L)
        step = steps(ids)
        logits = step.logits.to(torch.float32)
        scores = processed(task.processors, ids, logits.log_softmax(dim=-1))  # (R, V)
        records.add(step, logits, scores)
        candidates = continuations(running, scores, compared(running, scores, task))
        stopped = task.criteria(candidates.sequences.flatten(0, 1), records.scores).view(candidates.scores.shape)
        running = best_open(candidates, stopped, rules.num_beams)
        finished = merge_finished(finished, candidates, stopped, hope, rules, task.tokens.fill)
        if steps.cache is not None:
            steps.cache.reorder_cache(running.rows[:, :, -1].flatten().long())
        hope = still_hope(hope, running, finished, rules)
        if not goes_on(hope, finished, stopped, rules):
            break
    return best(finished.beams, task.config.num_return_sequences or 1, rules.prompt_length)


def beam_rules(task: Task) -> BeamRules:
    """Read the rules from a task."""
    config = task.config
    return BeamRules(
        num_beams=config.num_beams or 1,
        prompt_length=task.inputs.ids.shape[1],
        max_length=config.max_length or 0,  # final: an int
        length_penalty=1.0 if config.length_penalty is None else config.length_penalty,
        early_stopping=config.early_stopping or False,
    )


def compared(running: Beams, log_probabilities: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """Return accumulated scores and flat places of K candidates a text, (B, K) each.

    There are ``max(2, 1 + end tokens) * N``, so that N remain that go on. Those that are drawn are not sorted.
    """
    batch, num_beams = running.scores.shape
    sums = (log_probabilities.view(batch, num_beams, -1) + running.scores[..., None]).view(batch, -1)  # (B, N * V)
    kept = max(2, 1 + task.tokens.num_eos) * num_beams
    if kept > sums.shape[1]:
        raise ValueError(
            f"beam search with {task.tokens.num_eos} end tokens compares {kept} continuations, and a vocabulary of "
            f"{log_probabilities.shape[-1]} has {sums.shape[1]}; name fewer eos_token_id"
        )
    if not task.config.do_sample:
        scores, flat = sums.topk(kept)
        return scores, flat
    flat = torch.multinomial(sums.softmax(dim=-1), kept, generator=task.generator)
    return sums.gather(1, flat), flat


def best(beams: Beams, returned: int, prompt_length: int) -> BestBeams:
    """Return the first beams of each text, cut behind the longest."""
    rows = beams.rows[:, :returned].flatten(0, 1)
    longest = int((rows >= 0).sum(dim=1).max())
    return BestBeams(
        beams.sequences[:, :returned].flatten(0, 1)[:, : prompt_length + longest],
        beams.scores[:, :returned].flatten(),
        rows[:, :longest],
    )
