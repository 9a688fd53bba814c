"""Greedy search and sampling: one token a row and step. Knows nothing of beams, nor of how a call is prepared.

Letters: R rows, T tokens so far, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_encoder.generation.protocol import GenerativeModel
from sparse_encoder.generation.records import Records
from sparse_encoder.generation.steps import ModelSteps
from sparse_encoder.generation.task import Task, processed


def write_rows(model: GenerativeModel, task: Task, records: Records) -> Tensor:
    """Write until every row has met a criterion.

    A row that has ended is filled with the pad token, if there is a criterion of end tokens; with criteria of other
    kinds only it goes on until all rows have ended, as in transformers.

    Args:
        model: What gives logits.
        task: What is to be written.
        records: What is kept of each step.

    Returns:
        Prompt and written tokens, (R, T).

    Raises:
        ValueError: If rows are to be filled with a token that the model cannot read.
    """
    steps = ModelSteps(model, task.inputs, records.wanted)
    ids = task.inputs.ids
    rows = ids.shape[0]
    fills = rows > 1 and any(hasattr(criterion, "eos_token_id") for criterion in task.criteria)  # one row just ends
    can_be_read = 0 <= task.tokens.fill < model.config.vocab_size
    strays = fills and task.tokens.pad is not None and not can_be_read
    open_rows = torch.ones(rows, dtype=torch.bool, device=ids.device)
    while True:
        step = steps(ids)
        logits = step.logits.to(torch.float32)
        scores = processed(task.processors, ids, logits)
        records.add(step, logits, scores)
        tokens = choose(scores, task.generator) if task.config.do_sample else scores.argmax(dim=-1)
        if fills and task.tokens.pad is not None:
            tokens = torch.where(open_rows, tokens, task.tokens.pad)
        ids = torch.cat([ids, tokens[:, None]], dim=-1)
        open_rows = open_rows & ~task.criteria(ids, records.scores)
        if task.streamer is not None:
            task.streamer.put(tokens.cpu())
        if not open_rows.any():
            break
        if strays and not open_rows.all():
            raise ValueError(
                f"pad_token_id must lie between 0 and {scores.shape[-1] - 1}, where a row ends before others and the "
                f"model reads on behind it, got {task.tokens.fill}; pass pad_token_id, such as the end token"
            )
    if task.streamer is not None:
        task.streamer.end()
    return ids


def choose(scores: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw one token a row with the probabilities softmax(scores).

    Args:
        scores: float32, (R, V).
        generator: What is drawn from, once, R * V numbers; None: torch's own.

    Returns:
        Token ids, (R,).
    """
    return torch.multinomial(scores.softmax(dim=-1), 1, generator=generator).squeeze(1)
