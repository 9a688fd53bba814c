"""From the arguments of a call to what a decoder reads first. Knows nothing of encoders, nor of how text is written."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sparse_encoder.backbone.masks import places_behind_padding
from sparse_encoder.generation.callers import warn
from sparse_encoder.generation.model_inputs import ModelInputs, repeated, repeated_rows
from sparse_encoder.generation.request import ModelArguments
from sparse_encoder.generation.special_tokens import SpecialTokens


def with_begin_tokens(arguments: ModelArguments, bos: int | None, device: torch.device) -> Tensor:
    """Return the ids of a prompt, or one begin token for each text when nothing is given.

    Args:
        arguments: Inputs of the model; how many texts there are is read from the first tensor of the stack.
        bos: The begin token.
        device: Where the ids go.

    Raises:
        ValueError: If there is neither an input nor a begin token, or a mask is for more than begin tokens.
    """
    if arguments.input_ids is not None:
        return arguments.input_ids
    if arguments.inputs_embeds is not None:
        return torch.empty(arguments.inputs_embeds.shape[0], 0, dtype=torch.int64, device=device)
    if bos is None:
        raise ValueError("neither input_ids nor inputs_embeds is given, and bos_token_id is None; give one of them")
    mask = arguments.attention_mask
    if mask is not None and mask.shape[1] != 1:
        raise ValueError(
            "attention_mask must have one column where nothing is given but the begin token, got shape "
            f"{tuple(mask.shape)}; pass the tokens that it is for, as input_ids or inputs_embeds"
        )
    given = (mask, arguments.position_ids, arguments.decoder_input_ids, arguments.decoder_attention_mask)
    batch = next((tensor.shape[0] for tensor in given if tensor is not None), 1)
    return torch.full((batch, 1), bos, dtype=torch.int64, device=device)


def check_padding_side(ids: Tensor, mask: Tensor | None, pad: Tensor | None) -> None:
    """Warn if texts of a batch end in padding, behind which a decoder cannot go on."""
    if ids.shape[0] == 1 or not ids.shape[1] or pad is None:
        return
    ends = mask[:, -1] == 0 if mask is not None and mask.shape == ids.shape else ids[:, -1] == pad
    if bool(ends.any()):
        warn("texts end in padding, and a decoder writes on behind it; pad on the left (padding_side='left')")


def inferred_mask(ids: Tensor, tokens: SpecialTokens) -> Tensor | None:
    """Tell padding from text where no mask is given, (B, P); None if every token is text.

    A pad token that is also an end token says nothing.
    """
    if tokens.pad is None or not ids.shape[1] or (tokens.eos is not None and bool((tokens.eos == tokens.pad).any())):
        return None
    mask = ids != tokens.pad
    return None if bool(mask.all()) else mask.long()


class Reading(NamedTuple):
    """Hold how much of what is given the model has read, in tokens."""

    past: int
    new: int


def reading(given: int, past: int, mask: Tensor | None) -> Reading:
    """Tell new tokens from those that a cache holds.

    Args:
        given: Tokens of the ids or embeddings.
        past: Tokens of the cache.
        mask: As given, over all tokens.

    Raises:
        ValueError: If nothing is new, or the mask covers neither the given tokens nor those and the cached ones.
    """
    length = given if mask is None else mask.shape[1]
    if length == given:  # the whole text is given
        if given <= past:
            raise ValueError(
                f"past_key_values holds {past} tokens and the input {given}: nothing is new; give the whole text, or "
                "only its new tokens with an attention_mask over all of it"
            )
        return Reading(past, given - past)
    if length == past + given:
        return Reading(past, given)
    raise ValueError(
        f"attention_mask must cover the {given} tokens of the input, or these and the {past} in past_key_values, "
        f"got {length} columns"
    )


def decoder_inputs(
    arguments: ModelArguments, tokens: SpecialTokens, *, ids: Tensor, past: int, times: int
) -> ModelInputs:
    """Settle mask and places of a prompt, and repeat its rows.

    Places count the tokens that are not padding, from 0; padding has place 0 wherever it is, so that what is written
    behind padding on the right begins at place 1, as in transformers.

    Args:
        arguments: Inputs of the model.
        tokens: Special tokens.
        ids: Of the prompt, (B, P).
        past: Tokens that the cache holds.
        times: Rows a text.

    Raises:
        ValueError: If shapes do not go together.
    """
    embeds = arguments.inputs_embeds
    given = ids.shape[1] if embeds is None else embeds.shape[1]
    if embeds is not None and arguments.input_ids is not None and ids.shape != embeds.shape[:2]:
        raise ValueError(
            f"input_ids beside inputs_embeds must name the same tokens, got {tuple(ids.shape)} and "
            f"{tuple(embeds.shape[:2])}"
        )
    mask = arguments.attention_mask
    check_rows("attention_mask", mask, ids.shape[0])
    if mask is None:
        mask = inferred_mask(ids, tokens)
    past, new = reading(given, past, mask)
    mask = None if mask is None or bool((mask == 1).all()) else (mask != 0).long()
    places = arguments.position_ids
    if places is not None:
        places = checked_places(places, ids.shape[0], new)
    elif mask is not None:
        places = places_behind_padding(mask).masked_fill(mask == 0, 0)[:, -new:]
    return ModelInputs(
        ids=repeated_rows(ids, times),
        new_tokens=new,
        attention_mask=repeated(mask, times),
        position_ids=repeated(places, times),
        inputs_embeds=None if embeds is None else repeated_rows(embeds[:, -new:], times),
        cache=arguments.past_key_values,
    )


def checked_places(places: Tensor, rows: int, new: int) -> Tensor:
    """Return the places of the new tokens, (rows, new), of all texts or of each.

    Raises:
        ValueError: If there are too few, of another number of texts, or one is below 0.
    """
    if places.shape[0] == 1:
        places = places.expand(rows, -1)
    check_rows("position_ids", places, rows)
    if places.shape[1] < new:
        raise ValueError(f"position_ids must name {new} places, got shape {tuple(places.shape)}")
    places = places[:, -new:].long()
    if bool((places < 0).any()):
        raise ValueError(f"position_ids must be at least 0, got {int(places.min())}")
    return places


def check_rows(name: str, tensor: Tensor | None, rows: int) -> None:
    """Raise a ValueError if a tensor does not have a row for each text."""
    if tensor is not None and tensor.shape[0] != rows:
        raise ValueError(f"{name} must have a row for each of {rows} texts, got shape {tuple(tensor.shape)}")
