"""What a graph can be asked for, and the outputs and axes that answer it: data.

Axes: ``batch`` B, ``sequence`` T, ``choice`` C.
"""

from __future__ import annotations

from copy import deepcopy
from types import MappingProxyType

from sparse_encoder.export.graph import Axes

BATCH, SEQUENCE = "batch", "sequence"
PAST_SEQUENCE = "past_sequence"
TEXT_AXES = MappingProxyType({0: BATCH, 1: SEQUENCE})
_TOKENS = {0: BATCH, 1: SEQUENCE}

TASKS: dict[str, Axes] = {
    "causal-lm": {"logits": _TOKENS},
    "default": {"last_hidden_state": _TOKENS},
    "feature-extraction": {"last_hidden_state": _TOKENS},
    "masked-lm": {"logits": _TOKENS},
    "multiple-choice": {"logits": {0: BATCH}},
    "question-answering": {"start_logits": _TOKENS, "end_logits": _TOKENS},
    "seq2seq-lm": {"logits": {0: BATCH, 1: "decoder_sequence"}},
    "sequence-classification": {"logits": {0: BATCH}},
    "sparse-embedding": {"sentence_embedding": {0: BATCH}},
    "token-classification": {"logits": _TOKENS},
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
