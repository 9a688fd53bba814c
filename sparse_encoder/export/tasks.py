"""What a graph can be asked for, and the outputs and axes that answer it: data.

Axes: ``batch`` B, ``sequence`` T, ``choice`` C.
"""

from __future__ import annotations

from copy import deepcopy

from sparse_encoder.checkpoint.graph_names import EMBEDDING, SCORES_TASK, SPARSE_TASK
from sparse_encoder.export.graph import Axes

BATCH, SEQUENCE = "batch", "sequence"
PAST_SEQUENCE = "past_sequence"
TEXT_AXES = {0: BATCH, 1: SEQUENCE}

TASKS: dict[str, Axes] = {
    "causal-lm": {"logits": TEXT_AXES},
    "default": {"last_hidden_state": TEXT_AXES},
    "feature-extraction": {"last_hidden_state": TEXT_AXES},
    SCORES_TASK: {"logits": TEXT_AXES},
    "multiple-choice": {"logits": {0: BATCH}},
    "question-answering": {"start_logits": TEXT_AXES, "end_logits": TEXT_AXES},
    "seq2seq-lm": {"logits": {0: BATCH, 1: "decoder_sequence"}},
    "sequence-classification": {"logits": {0: BATCH}},
    SPARSE_TASK: {EMBEDDING: {0: BATCH}},
    "token-classification": {"logits": TEXT_AXES},
}
"""Outputs of each task, with the axes of any length; those of pictures and entities are not there."""


def outputs_of(task: str) -> dict[str, dict[int, str]]:
    """Return a copy of the outputs of a task.

    Raises:
        ValueError: If it is unknown.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; choose from {sorted(TASKS)}")
    return {name: dict(axes) for name, axes in deepcopy(TASKS[task]).items()}
