"""What the model reads before it writes: rows of ids, masks, places, and what the encoder said.

Letters: B texts, R rows (a text's beams or samples stand next to each other), P tokens of the prompt, S tokens of the
encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from sparse_encoder.generation.protocol import EncoderStates, GenerationCache


class RepeatedStates(NamedTuple):
    """Hold an encoder's states, with rows repeated as the decoder needs them."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None
    """One row a text, as the encoder returned them."""
    attentions: tuple[Tensor, ...] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInputs:
    """Hold what the first call of the model reads."""

    ids: Tensor
    """What the result begins with, (R, P); P is 0 if all that was given are embeddings."""
    new_tokens: int
    """How many of the last tokens the model has not read: all but those in a cache."""
    attention_mask: Tensor | None = None
    """Over the cached and new tokens of the decoder, int64; None if every token counts."""
    position_ids: Tensor | None = None
    """Of the new tokens, (R, new tokens); None: counted from the length of the cache."""
    inputs_embeds: Tensor | None = None
    """In place of the new ids, (R, new tokens, D)."""
    encoder_outputs: EncoderStates | None = None
    encoder_mask: Tensor | None = None
    """Of the encoder's tokens, (R, S)."""
    cache: GenerationCache | None = None


def repeated_rows(tensor: Tensor, times: int) -> Tensor:
    """Return each row ``times`` times, copies next to each other."""
    return tensor if times == 1 else tensor.repeat_interleave(times, dim=0)


def repeated(tensor: Tensor | None, times: int) -> Tensor | None:
    """Return each row ``times`` times, if there are rows."""
    return None if tensor is None else repeated_rows(tensor, times)


def repeat_states(states: EncoderStates | None, times: int) -> EncoderStates | None:
    """Return an encoder's states for ``times`` rows a text."""
    if states is None or times == 1:
        return states
    return RepeatedStates(repeated_rows(states.last_hidden_state, times), states.hidden_states, states.attentions)
