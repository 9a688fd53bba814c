"""How a saved transformer cuts its texts, from ``sentence_bert_config.json`` and what the caller adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparse_encoder.checkpoint import ConfigError, read_json_object, resolve_inside
from sparse_encoder.tokenizer import UNLIMITED, Tokenizer
from sparse_encoder.tokenizer_options import (
    CONFIG_FILES,
    TOKENIZER_OPTIONS,
    apply_options,
    checked_flag,
    checked_integer,
    known_options,
    lower_casing,
    pad_with_any,
    read_from_peer,
    text_options,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSettings:
    """How texts become tokens."""

    max_seq_length: int | None = None
    """Most tokens of a text."""
    query_length: int | None = None
    """Most tokens when the task is ``"query"``."""
    document_length: int | None = None
    """Most tokens when the task is ``"document"``."""
    max_length: int | None = None
    """Most tokens of a text, whatever its task, where a call says nothing."""
    add_special_tokens: bool = True
    do_lower_case: bool = False
    tokenizer_options: Mapping[str, Any] | None = None
    """Attributes of the tokenizer; Any: numbers and texts."""

    def applied(self, tokenizer: Tokenizer, processor_kwargs: Mapping[str, Any]) -> TextSettings:
        """Set up a tokenizer, the caller's options last; returns these settings.

        Raises:
            ValueError: If an option is unknown.
        """
        options = {**(self.tokenizer_options or {}), **known_options(processor_kwargs)}
        apply_options(tokenizer, options, self.max_seq_length)
        pad_with_any(tokenizer)
        return self

    def cased(self, tokenizer: Tokenizer) -> Tokenizer:
        """Return the tokenizer, with lower-casing if that is asked for."""
        return lower_casing(tokenizer) if self.do_lower_case else tokenizer

    def length_of(self, task: str | None, max_length: int | None) -> int | None:
        """Return the most tokens of a text in a call, which may say it; ``None`` for the tokenizer's limit."""
        if max_length is not None:
            return max_length
        if self.max_length is not None:
            return self.max_length
        return {"query": self.query_length, "document": self.document_length}.get(task or "")


def read_text_settings(folder: Path) -> TextSettings:
    """Read the settings of a transformer's folder; those that are not there stay as they are.

    Raises:
        ConfigError: If a value has the wrong type.
    """
    name = next((name for name in CONFIG_FILES if (folder / name).exists()), None)
    if name is None:
        return TextSettings()
    path = resolve_inside(folder, name)
    values = {key: value for key, value in read_json_object(path).items() if value is not None}
    try:
        lengths = {
            key: checked_integer(key, values[key])
            for key in ("max_seq_length", "query_length", "document_length")
            if key in values
        }
        task = values.get("transformer_task", "fill-mask")
        processing = text_options(read_from_peer(task, _object(values, "processing_kwargs"))[1])
        options = _object(values, "processor_kwargs") or _object(values, "tokenizer_args")
        return TextSettings(
            **lengths,
            max_length=processing.max_length,
            add_special_tokens=processing.add_special_tokens,
            do_lower_case=checked_flag("do_lower_case", values.get("do_lower_case", False)),
            tokenizer_options={key: options[key] for key in TOKENIZER_OPTIONS if key in options},
        )
    except (TypeError, ValueError) as reason:
        raise ConfigError(str(reason), path=path) from reason


def _object(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = values.get(name, {})
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be an object, got {value!r:.80}")
    return value


def positions_of(folder: Path) -> int | None:
    """Return the positions that a checkpoint's ``config.json`` tells, for graphs that do not tell; ``None`` if neither.

    Some of RoBERTa's kind are reserved for padding.
    """
    path = resolve_inside(folder, "config.json")
    values = read_json_object(path) if path.exists() else {}
    count, kind = values.get("max_position_embeddings"), str(values.get("model_type"))
    if isinstance(count, bool) or not isinstance(count, int) or not 0 < count < UNLIMITED:
        return None
    reserved = kind in ("roberta", "xlm-roberta", "camembert", "mpnet")
    return count - (int(values.get("pad_token_id") or 0) + 1 if reserved else 0)


def vocabulary_of(folder: Path) -> int | None:
    """Return the size of the vocabulary that a checkpoint's ``config.json`` tells; ``None`` without one."""
    path = resolve_inside(folder, "config.json")
    value = (read_json_object(path) if path.exists() else {}).get("vocab_size")
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
