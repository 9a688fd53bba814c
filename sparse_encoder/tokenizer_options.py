"""How texts are tokenised in every call, as a configuration says it, and the checks of its plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from tokenizers import normalizers

from sparse_encoder.tokenizer import Tokenizer

LOGITS_TO_KEEP = "logits_to_keep"
"""Tokens at the end whose logits sentence-transformers computes; 0 for all."""


class TextOptions(NamedTuple):
    """How texts are tokenised in every call."""

    max_length: int | None = None
    add_special_tokens: bool = True


def text_options(processing_kwargs: Mapping[str, Any]) -> TextOptions:
    """Read how texts are tokenised; padding and truncation may be named, but only as they are done anyway.

    Raises:
        ValueError: If an option is unknown or has another value.
    """
    if unknown := sorted(set(processing_kwargs) - {"text", "common"}):
        raise ValueError(f"unknown processing_kwargs {unknown}; choose from ['common', 'text']")
    options = {**processing_kwargs.get("common", {}), **processing_kwargs.get("text", {})}
    fixed = {"padding": (True, "longest"), "truncation": (True, "longest_first"), "return_tensors": ("pt",)}
    for name, values in fixed.items():
        if options.pop(name, values[0]) not in values:
            raise ValueError(f"{name} in processing_kwargs must be one of {list(values)}")
    if unknown := sorted(set(options) - set(TextOptions._fields)):
        raise ValueError(f"unknown options {unknown} in processing_kwargs; choose from {list(TextOptions._fields)}")
    if options.get("max_length") is not None:
        checked_integer("max_length", options["max_length"])
    return TextOptions(
        options.get("max_length"), checked_flag("add_special_tokens", options.get("add_special_tokens", True))
    )


def checked_integer(name: str, value: object, *, minimum: int = 1) -> int:
    """Return an integer from a configuration or a call.

    Raises:
        TypeError: If it is none; a boolean is none.
        ValueError: If it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return value


def checked_flag(name: str, value: object) -> bool:
    """Return a boolean from a configuration or a call.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be true or false, got {value!r}")
    return value


def lower_casing(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer that lower-cases texts first; the same one if it does so already."""
    backend = tokenizer.backend
    before = backend.normalizer
    if before is not None and before.normalize_str("A") == "a":
        return tokenizer
    steps = [normalizers.Lowercase()] if before is None else [normalizers.Lowercase(), before]
    backend.normalizer = normalizers.Sequence(steps)
    return Tokenizer(backend, replace(tokenizer.config))


def pad_with_any(tokenizer: Tokenizer) -> None:
    """Let a tokenizer without a padding token pad with its end token, or else its begin or unknown token.

    What is padded is masked, so that any id will do.
    """
    if tokenizer.pad_token is None:
        others = (tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token)
        found = next((token for token in others if token is not None), None)
        if found is not None:
            tokenizer.pad_token = found
