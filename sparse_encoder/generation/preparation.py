"""From a call of `generate` to a task: every default in place, inputs checked and repeated, cache and criteria built.

Knows nothing of how tokens are chosen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, cast

from torch import Tensor

from sparse_encoder.generation.config import GenerationConfig
from sparse_encoder.generation.decoder_inputs import check_padding_side, decoder_inputs, with_begin_tokens
from sparse_encoder.generation.encoder_inputs import encoded, encoder_decoder_inputs
from sparse_encoder.generation.lengths import Prompt, final_lengths
from sparse_encoder.generation.model_inputs import ModelInputs
from sparse_encoder.generation.positions import (
    check_positions,
    has_table,
    max_positions,
    past_length,
    within_positions,
)
from sparse_encoder.generation.processors_building import ProcessorFacts, build_logits_processors
from sparse_encoder.generation.protocol import CacheKind, EncoderDecoderModel, GenerationCache, GenerativeModel
from sparse_encoder.generation.request import GenerationRequest, ModelArguments, model_arguments
from sparse_encoder.generation.resolving import resolve
from sparse_encoder.generation.special_tokens import SpecialTokens, special_tokens
from sparse_encoder.generation.steps import Wanted
from sparse_encoder.generation.stopping_building import build_stopping_criteria
from sparse_encoder.generation.task import Task


class Settings(NamedTuple):
    """Hold what one call settled before any input was read."""

    config: GenerationConfig
    arguments: ModelArguments
    max_length_set: bool
    min_length_set: bool


class ReadInputs(NamedTuple):
    """Hold what the model reads, with what processors look at besides."""

    inputs: ModelInputs
    encoder_ids: Tensor | None
    """What the encoder reads, or the prompt of a decoder, (B, S)."""
    tokens: SpecialTokens
    embeds_length: int = 0
    """Tokens of the prompt that have no ids."""


def settle(model: GenerativeModel, request: GenerationRequest) -> Settings:
    """Settle every field of the config, and sort the inputs of the model out of the arguments.

    Args:
        model: Whose config comes after that of the call.
        request: The call.

    Raises:
        ValueError: If arguments are unknown or contradict each other.
        TypeError: If a value has the wrong type.
    """
    config, others, max_length_set, min_length_set = resolve(
        request.generation_config, model.generation_config, request.settings
    )
    arguments = model_arguments(
        request.inputs, others, is_encoder_decoder=model.is_encoder_decoder, model_name=type(model).__name__
    )
    if request.streamer is not None and (config.num_beams or 1) > 1:
        raise ValueError(f"a streamer needs num_beams=1, got {config.num_beams}: beams change what was written before")
    if arguments.inputs_embeds is not None and not model.is_encoder_decoder:
        config.use_cache = True  # embeddings are read by the first call only; the cache remembers them
    if arguments.past_key_values is not None and config.use_cache is False:
        raise ValueError("past_key_values is given and use_cache=False; a cache that is given is used")
    if arguments.past_key_values is not None and config.cache_implementation is not None:
        raise ValueError(
            f"past_key_values is given, and cache_implementation={config.cache_implementation!r} asks for a new cache; "
            "give one of them"
        )
    return Settings(config, arguments.to(model.device), max_length_set, min_length_set)


def prepare(model: GenerativeModel, request: GenerationRequest, settings: Settings, wanted: Wanted) -> Task:
    """Turn a call into a task.

    Args:
        model: What writes.
        request: The call.
        settings: What was settled of it; final lengths are written into its config.
        wanted: What the model records.

    Raises:
        ValueError: If inputs do not go together or leave nothing to write.
    """
    config = settings.config
    if model.is_encoder_decoder:
        read = read_encoder_decoder(cast(EncoderDecoderModel, model), settings, wanted)
    else:
        read = read_decoder(model, settings)
    prompt = Prompt(
        ids_length=read.inputs.ids.shape[1],
        embeds_length=read.embeds_length,
        max_positions=max_positions(model),
        name=prompt_name(model, read),
    )
    check_positions(model, prompt)
    config.max_length, config.min_length = final_lengths(
        config, prompt, max_length_set=settings.max_length_set, min_length_set=settings.min_length_set
    )
    is_default = config.max_new_tokens is None and not settings.max_length_set
    config.max_length = within_positions(model, config, read.inputs, prompt, is_default=is_default)
    inputs = with_cache(model, config, read.inputs, config.max_length - 1 + read.embeds_length)
    facts = ProcessorFacts(
        prompt_length=prompt.ids_length,
        encoder_input_ids=read.encoder_ids,
        attention_mask=inputs.attention_mask,
        eos_token_id=read.tokens.eos,
        device=model.device,
    )
    processors = build_logits_processors(config, facts, request.prefix_allowed_tokens_fn, request.logits_processor)
    places = None if has_table(model) else prompt.max_positions  # a table is not outgrown: that was looked at
    criteria = build_stopping_criteria(config, request.stopping_criteria, request.tokenizer, places, read.tokens.eos)
    if request.streamer is not None:
        request.streamer.put(inputs.ids.cpu())
    return Task(
        config=config,
        tokens=read.tokens,
        inputs=inputs,
        processors=processors,
        criteria=criteria,
        streamer=request.streamer,
        generator=request.generator,
    )


def prompt_name(model: GenerativeModel, read: ReadInputs) -> str:
    """Return the name of the argument that a text begins with."""
    if model.is_encoder_decoder:
        return "decoder_input_ids"
    return "inputs_embeds" if read.embeds_length else "input_ids"


def read_decoder(model: GenerativeModel, settings: Settings) -> ReadInputs:
    """Prepare what a decoder reads."""
    config, arguments = settings.config, settings.arguments
    ids = with_begin_tokens(arguments, config.bos_token_id, model.device)
    unmasked = ids.shape[0] > 1 and arguments.attention_mask is None
    tokens = special_tokens(config, model.device, is_encoder_decoder=False, unmasked_batch=unmasked)
    check_vocabulary("input_ids", ids, model)
    if arguments.inputs_embeds is None:
        check_padding_side(ids, arguments.attention_mask, tokens.pad)
    inputs = decoder_inputs(
        arguments, tokens, ids=ids, past=past_length(arguments.past_key_values), times=rows_per_text(config)
    )
    embeds = arguments.inputs_embeds
    return ReadInputs(
        inputs,
        encoder_ids=ids if embeds is None else None,  # as transformers, also where ids stand beside embeddings
        tokens=tokens,
        embeds_length=0 if embeds is None or ids.shape[1] else embeds.shape[1],
    )


def read_encoder_decoder(model: EncoderDecoderModel, settings: Settings, wanted: Wanted) -> ReadInputs:
    """Run the encoder, and prepare what the decoder behind it reads."""
    config, arguments = settings.config, settings.arguments
    ids = None
    if arguments.encoder_outputs is None and arguments.inputs_embeds is None:
        ids = with_begin_tokens(arguments, config.bos_token_id, model.device)
        check_vocabulary("input_ids", ids, model)
    states = encoded(model, arguments, ids, wanted)
    unmasked = states.last_hidden_state.shape[0] > 1 and arguments.attention_mask is None
    tokens = special_tokens(config, model.device, is_encoder_decoder=True, unmasked_batch=unmasked)
    inputs = encoder_decoder_inputs(
        arguments,
        states,
        tokens.start,
        past=past_length(arguments.past_key_values),
        times=rows_per_text(config),
    )
    check_vocabulary("decoder_input_ids", inputs.ids, model)
    return ReadInputs(inputs, encoder_ids=arguments.input_ids if ids is None else ids, tokens=tokens)


def rows_per_text(config: GenerationConfig) -> int:
    """Return how many rows are written for each text."""
    return max(config.num_beams or 1, config.num_return_sequences or 1)


def check_vocabulary(name: str, ids: Tensor, model: GenerativeModel) -> None:
    """Raise a ValueError if ids lie outside the vocabulary, which a device may not survive."""
    if not ids.numel():
        return
    lowest, highest = (int(bound) for bound in ids.aminmax())
    if lowest < 0 or highest >= model.config.vocab_size:
        raise ValueError(
            f"{name} must lie between 0 and {model.config.vocab_size - 1}, the vocabulary of the model, got "
            f"{lowest} to {highest}"
        )


def with_cache(
    model: GenerativeModel, config: GenerationConfig, inputs: ModelInputs, max_cache_len: int
) -> ModelInputs:
    """Return inputs with a cache: the one that was given, or a new one unless ``use_cache`` is False.

    Raises:
        ValueError: If a cache has other rows, or beams need one that can be reordered, and it cannot.
    """
    if inputs.cache is None and config.use_cache is not False:
        asked = cast(CacheKind, config.cache_implementation or "dynamic")
        if asked == "static":
            max_cache_len = max(max_cache_len, config.max_cache_len or 0)
        inputs = replace(inputs, cache=model.new_cache(asked, max_cache_len))
    check_cache_rows(inputs.cache, inputs.ids.shape[0])
    if inputs.cache is not None and (config.num_beams or 1) > 1 and not hasattr(inputs.cache, "reorder_cache"):
        kind = type(inputs.cache).__name__
        raise ValueError(f"num_beams={config.num_beams} needs a cache with a method reorder_cache; {kind} has none")
    return inputs


def check_cache_rows(cache: GenerationCache | None, rows: int) -> None:
    """Raise a ValueError if a cache holds texts, and not one for each row."""
    kept = getattr(cache, "num_rows", None)
    if kept is None or kept == rows:
        return
    repair = "use a cache of this batch"
    if rows % kept == 0:
        repair = f"repeat them with past_key_values.batch_repeat_interleave({rows // kept}), or {repair}"
    raise ValueError(
        f"past_key_values holds {kept} rows, and this call writes {rows} (texts times num_beams or "
        f"num_return_sequences); {repair}"
    )
