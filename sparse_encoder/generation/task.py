"""One text to be written for each row, prepared: what is read, what is asked, when it ends. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparse_encoder.generation.model_inputs import ModelInputs
from sparse_encoder.generation.special_tokens import SpecialTokens

if TYPE_CHECKING:
    from sparse_encoder.generation.config import GenerationConfig
    from sparse_encoder.generation.processors import LogitsProcessorList
    from sparse_encoder.generation.stopping import StoppingCriteriaList


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """Hold everything a decoding loop needs besides the model."""

    config: GenerationConfig
    """With final lengths and every default in place."""
    tokens: SpecialTokens
    inputs: ModelInputs
    processors: LogitsProcessorList
    criteria: StoppingCriteriaList
    streamer: Any = None  # anything with put and end
    generator: torch.Generator | None = None


def processed(processors: LogitsProcessorList, ids: Tensor, logits: Tensor) -> Tensor:
    """Return what processors make of logits, which stay as they are.

    Args:
        processors: Each gets ids and scores, and may write into the scores.
        ids: The text so far, (R, T).
        logits: float32, (R, V).
    """
    return processors(ids, logits.clone()) if len(processors) else logits
