"""From a generation config to the processors it asks for, in the order that transformers documents.

Knows which field asks for what; what a processor does is its own business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_encoder.generation.callers import warn
from sparse_encoder.generation.config import GenerationConfig
from sparse_encoder.generation.processors import LogitsProcessor, LogitsProcessorList, Processor, with_custom
from sparse_encoder.generation.processors_bias import NoBadWordsLogitsProcessor, SequenceBiasLogitsProcessor
from sparse_encoder.generation.processors_length import (
    ExponentialDecayLengthPenalty,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
)
from sparse_encoder.generation.processors_repetition import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)
from sparse_encoder.generation.processors_selection import (
    AllowedTokens,
    InfNanRemoveLogitsProcessor,
    LogitNormalization,
    PrefixConstrainedLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)
from sparse_encoder.generation.warpers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)


class ProcessorFacts(NamedTuple):
    """What processors need to know of a call besides its config."""

    prompt_length: int
    """Tokens that the rows have before the first is generated; 0 if the prompt came as embeddings."""
    encoder_input_ids: Tensor | None
    """Tokens of the encoder, or of the prompt where there is no encoder, (texts, S) or one row for each result."""
    attention_mask: Tensor | None
    """Over the prompt's places, (rows, P): zeros on the left are padding."""
    eos_token_id: Tensor | None
    """Ends of texts, (number of them,)."""
    device: torch.device | None = None


def build_logits_processors(
    config: GenerationConfig,
    facts: ProcessorFacts,
    prefix_allowed_tokens_fn: AllowedTokens | None = None,
    custom: Iterable[Processor] | None = None,
) -> LogitsProcessorList:
    """Return the processors of a call, in the order in which they run.

    Those that any way of decoding uses come first, then the call's own, then those for sampling, and a normalisation
    last. One of the call's own takes the place of a built-in one of exactly its type, with a warning.

    Args:
        config: With every default in place, and the length that is final.
        facts: Of the call.
        prefix_allowed_tokens_fn: Says which tokens may follow.
        custom: Processors of the call.

    Raises:
        ValueError: If a value is out of range for its processor, or one needs ``eos_token_id``, which is not set.
    """
    processors: list[Processor] = with_custom(
        [*_about_repetition(config, facts), *_about_tokens(config, facts, prefix_allowed_tokens_fn)],
        custom or (),
        "logits processor",
    )
    if config.do_sample:
        processors += _warpers(config, facts)
    if config.renormalize_logits:
        processors.append(LogitNormalization())
    return LogitsProcessorList(processors)


def _about_repetition(config: GenerationConfig, facts: ProcessorFacts) -> Iterator[LogitsProcessor]:
    """Yield what looks at whole sequences, up to the words that are banned."""
    source = _source(facts)
    if config.sequence_bias is not None:
        yield SequenceBiasLogitsProcessor(config.sequence_bias)
    if config.encoder_repetition_penalty not in (None, 1.0):
        if source is None:
            _warn_of_embeddings("encoder_repetition_penalty")
        else:
            yield EncoderRepetitionPenaltyLogitsProcessor(config.encoder_repetition_penalty, source)
    if config.repetition_penalty not in (None, 1.0):
        _warn_of_new_tokens("repetition_penalty", facts)
        yield RepetitionPenaltyLogitsProcessor(config.repetition_penalty, _padding(facts.attention_mask))
    if config.no_repeat_ngram_size:
        _warn_of_new_tokens("no_repeat_ngram_size", facts)
        yield NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size)
    if config.encoder_no_repeat_ngram_size:
        if source is None:
            _warn_of_embeddings("encoder_no_repeat_ngram_size")
        else:
            yield EncoderNoRepeatNGramLogitsProcessor(config.encoder_no_repeat_ngram_size, source)
    if config.bad_words_ids is not None:
        yield NoBadWordsLogitsProcessor(config.bad_words_ids, facts.eos_token_id)


def _about_tokens(
    config: GenerationConfig, facts: ProcessorFacts, prefix_allowed_tokens_fn: AllowedTokens | None
) -> Iterator[LogitsProcessor]:
    """Yield what looks at lengths and single tokens."""
    ends, device = facts.eos_token_id, facts.device
    if config.min_length and config.min_length > 0 and ends is not None:
        yield MinLengthLogitsProcessor(config.min_length, ends, device)
    if config.min_new_tokens and config.min_new_tokens > 0 and ends is not None:
        yield MinNewTokensLengthLogitsProcessor(facts.prompt_length, config.min_new_tokens, ends, device)
    if prefix_allowed_tokens_fn is not None:
        yield PrefixConstrainedLogitsProcessor(prefix_allowed_tokens_fn, config.num_beams or 1)
    if config.forced_bos_token_id is not None:
        yield ForcedBOSTokenLogitsProcessor(config.forced_bos_token_id)
    if config.forced_eos_token_id is not None:
        if config.max_length is None:
            raise ValueError("forced_eos_token_id needs max_length or max_new_tokens, to know the last place")
        yield ForcedEOSTokenLogitsProcessor(config.max_length, config.forced_eos_token_id, device)
    if config.remove_invalid_values:
        yield InfNanRemoveLogitsProcessor()
    if config.exponential_decay_length_penalty is not None:
        if ends is None:
            raise ValueError("exponential_decay_length_penalty needs eos_token_id, the token that it favours")
        yield ExponentialDecayLengthPenalty(config.exponential_decay_length_penalty, ends, facts.prompt_length)
    if config.suppress_tokens is not None:
        yield SuppressTokensLogitsProcessor(config.suppress_tokens, device)
    if config.begin_suppress_tokens is not None:
        is_behind_forced = facts.prompt_length <= 1 and config.forced_bos_token_id is not None
        begin = facts.prompt_length + is_behind_forced
        yield SuppressTokensAtBeginLogitsProcessor(config.begin_suppress_tokens, begin, device)


def _warpers(config: GenerationConfig, facts: ProcessorFacts) -> Iterator[LogitsProcessor]:
    """Yield what is for sampling alone; of several beams one more token is kept than there are ends of texts."""
    ends = 1 if facts.eos_token_id is None else len(facts.eos_token_id)
    kept = ends + 1 if (config.num_beams or 1) > 1 else 1
    if config.temperature not in (None, 1.0):
        yield TemperatureLogitsWarper(config.temperature)
    if config.top_h is not None:
        yield TopHLogitsWarper(config.top_h)
    if config.top_k:
        yield TopKLogitsWarper(config.top_k, min_tokens_to_keep=kept)
    if config.top_p not in (None, 1.0):
        yield TopPLogitsWarper(config.top_p, min_tokens_to_keep=kept)
    if config.min_p is not None:
        yield MinPLogitsWarper(config.min_p, min_tokens_to_keep=kept)
    if config.typical_p not in (None, 1.0):
        yield TypicalLogitsWarper(config.typical_p, min_tokens_to_keep=kept)
    if config.epsilon_cutoff:
        yield EpsilonLogitsWarper(config.epsilon_cutoff, min_tokens_to_keep=kept)
    if config.eta_cutoff:
        yield EtaLogitsWarper(config.eta_cutoff, min_tokens_to_keep=kept)


def _source(facts: ProcessorFacts) -> Tensor | None:
    """Return the tokens of the encoder or prompt; None where they came as embeddings."""
    ids = facts.encoder_input_ids
    return None if ids is None or ids.dim() != 2 or not ids.numel() or bool((ids < 0).any()) else ids


def _padding(attention_mask: Tensor | None) -> Tensor | None:
    """Return how many places of each row are padding on the left, (rows,)."""
    return None if attention_mask is None else (attention_mask != 0).int().argmax(dim=1)


def _warn_of_embeddings(field: str) -> None:
    warn(f"{field} needs the tokens of the input, which came as embeddings; it has no effect")


def _warn_of_new_tokens(field: str, facts: ProcessorFacts) -> None:
    if facts.prompt_length == 0:
        warn(f"the prompt came as embeddings: {field} counts only the generated tokens")
