"""How long a text may and must become. Knows no model but the number of its positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sparse_encoder.generation.callers import warn

if TYPE_CHECKING:
    from sparse_encoder.generation.config import GenerationConfig

DEFAULT_NEW_TOKENS = 20
"""What is written when nobody says how much."""


class Lengths(NamedTuple):
    """Hold tokens of prompt and text together; of the decoder alone behind an encoder."""

    max_length: int
    min_length: int


class Prompt(NamedTuple):
    """Hold what lengths depend on."""

    ids_length: int
    """Tokens that the result begins with."""
    embeds_length: int
    """Tokens that were given as embeddings and not as ids."""
    max_positions: int | None
    """Tokens the model has positions for; None: any number."""
    name: str
    """Of the ids, for messages."""


def final_lengths(config: GenerationConfig, prompt: Prompt, *, max_length_set: bool, min_length_set: bool) -> Lengths:
    """Settle the lengths of a text.

    ``max_new_tokens`` wins over ``max_length``, ``min_new_tokens`` over ``min_length``; without any, 20 new tokens are
    written, and no more than the model has positions for.

    Args:
        config: With every setting in place.
        prompt: What the text begins with.
        max_length_set: Whether ``max_length`` comes from the call or the model and is not the default of all models.
        min_length_set: The same of ``min_length``.

    Raises:
        ValueError: If the prompt is as long as the text may become.
    """
    max_length = _max_length(config, prompt, given=max_length_set)
    if prompt.ids_length >= max_length:
        raise ValueError(
            f"{prompt.name} is {prompt.ids_length} tokens long, and max_length={max_length} counts them: nothing is "
            "left to write; raise max_length, or pass max_new_tokens"
        )
    min_length = _min_length(config, prompt, given=min_length_set)
    if min_length > max_length:
        name = "min_length" if config.min_new_tokens is None else "min_new_tokens"
        warn(
            f"{name}={getattr(config, name)} asks for at least {min_length} tokens, and max_length={max_length} ends "
            "the text before; lower the one or raise the other"
        )
    return Lengths(max_length, min_length)


def _max_length(config: GenerationConfig, prompt: Prompt, *, given: bool) -> int:
    """Settle how long a text may become."""
    if config.max_new_tokens is not None:
        if given:
            warn(
                f"max_new_tokens={config.max_new_tokens} and max_length={config.max_length} are both set; "
                "max_new_tokens is taken"
            )
        return int(config.max_new_tokens) + prompt.ids_length
    if given and config.max_length is not None:
        return int(config.max_length) - prompt.embeds_length
    longest = DEFAULT_NEW_TOKENS + prompt.ids_length
    return longest if prompt.max_positions is None else min(longest, prompt.max_positions)


def _min_length(config: GenerationConfig, prompt: Prompt, *, given: bool) -> int:
    """Settle how long a text must become."""
    if config.min_new_tokens is not None:
        if given:
            warn(
                f"min_new_tokens={config.min_new_tokens} and min_length={config.min_length} are both set; "
                "min_new_tokens is taken"
            )
        return int(config.min_new_tokens) + prompt.ids_length
    return max(int(config.min_length or 0) - prompt.embeds_length, 0)
