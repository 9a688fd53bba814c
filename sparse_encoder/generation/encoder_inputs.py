"""From the arguments of a call to what a decoder behind an encoder reads first. Knows no loop."""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_encoder.generation.decoder_inputs import check_rows, reading
from sparse_encoder.generation.model_inputs import ModelInputs, repeat_states, repeated, repeated_rows
from sparse_encoder.generation.protocol import EncoderDecoderModel, EncoderStates
from sparse_encoder.generation.request import ModelArguments
from sparse_encoder.generation.steps import Wanted


def encoded(model: EncoderDecoderModel, arguments: ModelArguments, ids: Tensor | None, wanted: Wanted) -> EncoderStates:
    """Return what was given as ``encoder_outputs``, or run the encoder once.

    Args:
        model: Whose encoder.
        arguments: Inputs of the model.
        ids: Of the encoder, (B, S), unless embeddings are given.
        wanted: What it records.
    """
    if arguments.encoder_outputs is not None:
        return arguments.encoder_outputs
    return model.encode(
        ids,
        arguments.attention_mask,
        inputs_embeds=arguments.inputs_embeds,
        output_attentions=wanted.attentions,
        output_hidden_states=wanted.hidden_states,
    )


def started(given: Tensor | None, mask: Tensor | None, start: Tensor, batch: int) -> tuple[Tensor, Tensor | None]:
    """Return ids and mask of the decoder, with its start token in front unless a row has it already.

    Args:
        given: Ids of the decoder, (B, P), or None.
        mask: Of these, (B, P), or None.
        start: The start token: a scalar, or one for each text.
        batch: How many texts there are.

    Raises:
        ValueError: If the number of start tokens is wrong.
    """
    if start.ndim and start.shape[0] != batch:
        raise ValueError(
            f"decoder_start_token_id must be one token or one for each of {batch} texts, got {start.shape[0]}"
        )
    column = start.view(-1, 1).expand(batch, 1)
    if given is None:
        return column.contiguous(), mask
    check_rows("decoder_input_ids", given, batch)
    given = given.to(column.dtype)
    if bool((given[:, 0] == column[:, 0]).any()):
        return given, mask
    return torch.cat([column, given], dim=-1), None if mask is None else torch.cat([mask.new_ones(batch, 1), mask], -1)


def encoder_decoder_inputs(
    arguments: ModelArguments, states: EncoderStates, start: Tensor, *, past: int, times: int
) -> ModelInputs:
    """Settle what the decoder begins with, and repeat rows, those of the encoder too.

    Args:
        arguments: Inputs of the model.
        states: Of the encoder.
        start: The start token of the decoder: a scalar, or one for each text.
        past: Tokens that the cache holds.
        times: Rows a text.

    Raises:
        ValueError: If shapes do not go together.
    """
    batch, length = states.last_hidden_state.shape[:2]
    check_rows("attention_mask", arguments.attention_mask, batch)
    if arguments.attention_mask is not None and arguments.attention_mask.shape[1] != length:
        raise ValueError(
            f"attention_mask must cover the {length} tokens of the encoder, got {arguments.attention_mask.shape[1]}"
        )
    check_rows("decoder_attention_mask", arguments.decoder_attention_mask, batch)
    check_memory(arguments.past_key_values, length)
    ids, mask = arguments.decoder_input_ids, arguments.decoder_attention_mask
    if ids is None or not past:
        ids, mask = started(ids, mask, start, batch)
    past, new = reading(ids.shape[1], past, mask)
    return ModelInputs(
        ids=repeated_rows(ids, times),
        new_tokens=new,
        attention_mask=repeated(None if mask is None else (mask != 0).long(), times),
        encoder_outputs=repeat_states(states, times),
        encoder_mask=repeated(arguments.attention_mask, times),
        cache=arguments.past_key_values,
    )


def check_memory(cache: object, length: int) -> None:
    """Raise a ValueError if a cache holds what an encoder made of texts of another length than those of this call.

    Texts of the same length cannot be told apart, here as in transformers: a cache answers for those it was filled by.
    """
    memory = getattr(cache, "memory", None)
    kept = memory(0) if callable(memory) else None
    if kept is not None and kept.keys.shape[2] != length:
        raise ValueError(
            f"past_key_values holds what the encoder made of {kept.keys.shape[2]} tokens, and its input has {length}: "
            "a cache answers for the text that it was filled by; use a new one, or past_key_values.reset()"
        )
