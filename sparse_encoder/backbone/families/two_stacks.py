"""What families of an encoder and a decoder share: the second stack's config, and the rows of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sparse_encoder.backbone.config import FieldError, TransformerConfig
from sparse_encoder.backbone.families.family import Rows
from sparse_encoder.backbone.families.reader import ConfigReader

ENCODER, DECODER = "backbone.", "decoder."
"""What stands before our names of the two stacks."""


def with_decoder(
    reader: ConfigReader,
    config: TransformerConfig,
    keys: Mapping[str, str],
    changed: Mapping[str, Any],  # Any: each has the type of its field
) -> TransformerConfig:
    """Describe the decoder of an encoder.

    It is causal, looks at the encoder, and takes the encoder's word embeddings.

    Args:
        reader: Of the file.
        config: Of the encoder.
        keys: Fields of the decoder to the keys that they come from, for errors.
        changed: Fields in which the decoder differs, by our names.

    Raises:
        ConfigError: If a value of the decoder is out of range.
    """
    try:
        own = replace(config, tie_word_embeddings=True, head_scale=1.0, logits_bias=False)  # it has no head
        decoder = replace(own, causal=True, cross_attention=True, own_words=False, **changed)
    except FieldError as error:
        raise reader.error(keys.get(error.field, error.field), error.rule) from error
    return replace(config, decoder=decoder)


def both(encoder: Rows, decoder: Rows, config: TransformerConfig) -> Rows:
    """Return the rows of the stacks that a model has."""
    return encoder if config.decoder is None else encoder + decoder


def check_is_pair(reader: ConfigReader) -> None:
    """Refuse half of a model where both stacks are needed.

    Raises:
        ConfigError: If the config says that there is no encoder, or no decoder.
    """
    reader.require("is_encoder_decoder", True, because="only the encoder and the decoder together are supported")
    reader.require("is_decoder", False, because="a decoder without its encoder is not supported")
    reader.require("add_cross_attention", False, because="a decoder without its encoder is not supported")
