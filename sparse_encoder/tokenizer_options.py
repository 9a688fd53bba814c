"""How texts are tokenised in every call, as a configuration says it, and the checks of its plain values."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from tokenizers import normalizers

from sparse_encoder.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

CONFIG_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
"""Names of a transformer's configuration, today's first; the first that is there is read."""
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
TOKENIZER_OPTIONS = (
    "model_max_length",
    "padding_side",
    "truncation_side",
    *_SPECIAL_TOKENS,
    "add_bos_token",  # behind the tokens, which it may put around texts
    "add_eos_token",
)
"""Attributes of a tokenizer that ``processor_kwargs`` may set, in the order in which they are set."""
REMOTE_CODE = "trust_remote_code"
"""An option that is always taken and never followed: code that comes with a model is never run."""
_IDLE = (REMOTE_CODE, "use_fast")

PEER_TASK = "text-generation"
"""What sentence-transformers calls the task of a decoder with its head."""
LOGITS_TO_KEEP = "logits_to_keep"
"""Tokens at the end whose logits sentence-transformers computes; 0 for all."""


class TextOptions(NamedTuple):
    """How texts are tokenised in every call."""

    max_length: int | None = None
    add_special_tokens: bool = True


def merged_options(processing_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of texts: those in ``common``, and those in ``text``, which win.

    Raises:
        TypeError: If there is something else than options by name.
        ValueError: If there is a kind of input that is not known.
    """
    parts = _parts(processing_kwargs)
    if unknown := sorted(set(parts) - {"text", "common"}):
        raise ValueError(f"unknown processing_kwargs {unknown}; choose from ['common', 'text']")
    return {**parts.get("common", {}), **parts.get("text", {})}


def _parts(processing_kwargs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Copy the options of each kind of input, which must be mappings."""
    hint = "give for example {'text': {'max_length': 64}}"
    if not isinstance(processing_kwargs, Mapping):
        raise TypeError(f"processing_kwargs must be a mapping of mappings, got {processing_kwargs!r}; {hint}")
    for name, options in processing_kwargs.items():
        if not isinstance(options, Mapping):
            raise TypeError(f"processing_kwargs[{name!r}] must be a mapping of options, got {options!r}; {hint}")
    return {name: dict(options) for name, options in processing_kwargs.items()}


def text_options(processing_kwargs: Mapping[str, Any]) -> TextOptions:
    """Read how texts are tokenised; padding and truncation may be named, but only as they are done anyway.

    Raises:
        TypeError: As :func:`merged_options`, or if an option is of another type.
        ValueError: If an option is unknown or has another value.
    """
    options = merged_options(processing_kwargs)
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


def read_from_peer(task: str, processing_kwargs: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """Bring the peer's spelling of a decoder's task into ours.

    Args:
        task: The task of a module.
        processing_kwargs: How it treats texts.

    Returns:
        The task, ``"fill-mask"`` for :data:`PEER_TASK`; and the options without the number of logits.

    Raises:
        TypeError: If the options of a kind of input are no mapping.
        ValueError: If only the logits of the last tokens are to be kept.
    """
    given = _parts({} if processing_kwargs is None else processing_kwargs)
    if task != PEER_TASK:
        return task, given
    kept = [values.pop(LOGITS_TO_KEEP) for values in given.values() if LOGITS_TO_KEEP in values]
    if not kept or any(each != 0 for each in kept):
        raise ValueError(
            f"transformer_task {PEER_TASK!r} needs processing_kwargs={{'text': {{{LOGITS_TO_KEEP!r}: 0}}}}: with any "
            "other number sentence-transformers makes logits of the last tokens alone, and a text's terms are those of "
            "all its tokens"
        )
    return "fill-mask", {name: values for name, values in given.items() if values}


def warn_of_remote_code(*options: Mapping[str, Any] | None) -> None:
    """Say once, if any of the options asks for code of a model, that it is never run."""
    if any((each or {}).get(REMOTE_CODE) for each in options):
        logger.warning("%s is ignored: code that comes with a model is never run", REMOTE_CODE)


def known_options(processor_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a tokenizer without those that scripts give and that change nothing here.

    Raises:
        ValueError: If an option is unknown.
    """
    options = {name: value for name, value in processor_kwargs.items() if name not in _IDLE}
    if unknown := sorted(set(options) - set(TOKENIZER_OPTIONS)):
        raise ValueError(f"unknown processor_kwargs {unknown}; choose from {list(TOKENIZER_OPTIONS)}")
    return options


def apply_options(tokenizer: Tokenizer, options: Mapping[str, Any], max_seq_length: int | None) -> None:
    """Set up a tokenizer, in the order of :data:`TOKENIZER_OPTIONS`, in whatever order the options are given.

    Args:
        tokenizer: The tokenizer.
        options: Those of :func:`known_options`.
        max_seq_length: Most tokens of a text; ``model_max_length`` among the options wins.

    Raises:
        TypeError: If ``max_seq_length`` is no integer.
        ValueError: If an option has a value that the tokenizer cannot take.
    """
    values = dict(options)
    if max_seq_length is not None:
        values.setdefault("model_max_length", checked_integer("max_seq_length", max_seq_length))
    for name in sorted(values, key=TOKENIZER_OPTIONS.index):
        setattr(tokenizer, name, values[name])


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
