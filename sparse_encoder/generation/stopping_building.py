"""From a generation config to the criteria it asks for."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from sparse_encoder.generation.config import GenerationConfig
from sparse_encoder.generation.processors import with_custom
from sparse_encoder.generation.stopping import (
    Criterion,
    Decoder,
    EosTokenCriteria,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)


def build_stopping_criteria(
    config: GenerationConfig,
    custom: Iterable[Criterion] | None = None,
    tokenizer: Decoder | None = None,
    max_position_embeddings: int | None = None,
    eos_token_id: Tensor | None = None,
) -> StoppingCriteriaList:
    """Return the criteria of a call; one of its own takes the place of a built-in one of exactly its type.

    Args:
        config: With the length that is final.
        custom: Criteria of the call.
        tokenizer: What texts that end a result are looked for with.
        max_position_embeddings: Places the model knows.
        eos_token_id: Ends of texts, (number of them,).

    Raises:
        ValueError: If there are ``stop_strings`` and no tokenizer.
    """
    built_in: list[Criterion] = []
    if config.max_length is not None:
        built_in.append(MaxLengthCriteria(config.max_length, max_position_embeddings))
    if config.max_time is not None:
        built_in.append(MaxTimeCriteria(config.max_time))
    if config.stop_strings is not None:
        if tokenizer is None:
            raise ValueError("stop_strings need the tokenizer: give generate() the argument tokenizer as well")
        built_in.append(StopStringCriteria(tokenizer, config.stop_strings))
    if eos_token_id is not None:
        built_in.append(EosTokenCriteria(eos_token_id))
    return StoppingCriteriaList(with_custom(built_in, custom or (), "stopping criterion"))
