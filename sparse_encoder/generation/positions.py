"""How many places a model has for a text, and whether a text fits. Knows nothing of how a call is prepared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparse_encoder.generation.lengths import Prompt
from sparse_encoder.generation.model_inputs import ModelInputs
from sparse_encoder.generation.protocol import GenerationCache, GenerativeModel

if TYPE_CHECKING:
    from sparse_encoder.backbone.config import TransformerConfig
    from sparse_encoder.generation.config import GenerationConfig


def past_length(cache: GenerationCache | None) -> int:
    """Return how many tokens a cache holds."""
    return 0 if cache is None else int(cache.get_seq_length())


def positions_of(model: GenerativeModel) -> TransformerConfig:
    """Return the config that knows the positions of what is written: the decoder's, if there is one of its own."""
    return model.config.decoder or model.config


def max_positions(model: GenerativeModel) -> int | None:
    """Return how many tokens a model has positions for; None: any number."""
    config = positions_of(model)
    return None if config.position_kind == "none" else config.max_positions


def has_table(model: GenerativeModel) -> bool:
    """Return whether places of what is written are learned, so that there are no others."""
    return positions_of(model).position_kind == "absolute"


def check_positions(model: GenerativeModel, prompt: Prompt) -> None:
    """Raise a ValueError if a prompt is longer than a learned table of positions."""
    config = positions_of(model)
    length = prompt.ids_length + prompt.embeds_length
    if has_table(model) and length > config.max_positions:
        raise ValueError(
            f"{prompt.name} is {length} tokens long, and this model has positions for {config.max_positions}; "
            "shorten it"
        )


def within_positions(
    model: GenerativeModel, config: GenerationConfig, inputs: ModelInputs, prompt: Prompt, *, is_default: bool
) -> int:
    """Return how long a text may become, by a learned table of positions too; one that nobody set is lowered to it.

    A text that outgrew the table would be lost, so that it is not begun.

    Args:
        model: Whose table.
        config: With the length that is asked for.
        inputs: With the places of the prompt.
        prompt: What the text begins with.
        is_default: Whether nobody asked for the length.

    Raises:
        ValueError: If a place of the prompt lies outside the table, or more is asked for than it has places.
    """
    length = config.max_length or 0  # final: an int
    positions = positions_of(model)
    if not has_table(model):
        return length
    last, places = past_length(inputs.cache) + inputs.new_tokens - 1, inputs.position_ids
    if places is not None:
        last = int(places[:, -1].max())
        if int(places.max()) >= positions.max_positions:
            raise ValueError(
                f"position_ids must be below {positions.max_positions}, the positions of this model, got "
                f"{int(places.max())}"
            )
    room = positions.max_positions - last  # the last token that is written needs no place
    longest = prompt.ids_length + room
    if length <= longest or is_default:
        return min(length, longest)
    name, most = ("max_length", longest + prompt.embeds_length)
    if config.max_new_tokens is not None:
        name, most = ("max_new_tokens", room)
    shorter = f", or shorten {prompt.name}" if prompt.ids_length + prompt.embeds_length > 1 else ""
    raise ValueError(
        f"this model has positions for {positions.max_positions} tokens, and behind this prompt for {room} more: "
        f"{name} must be at most {most}, got {most + length - longest}; lower it{shorter}"
    )
