"""Reads and writes the folder of a tokenizer: tokenizer.json, tokenizer_config.json and what older versions left beside.

Knows the dialects of transformers 4 and 5; knows neither models nor tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from sparse_encoder.checkpoint.atomic import write_json, write_text
from sparse_encoder.checkpoint.errors import TokenizerError
from sparse_encoder.checkpoint.json_files import read_json_object
from sparse_encoder.tokenizer_build import build_backend, token_text
from sparse_encoder.tokenizer_check import check_ids, parse_backend, rust_errors

UNLIMITED = 10**30
"""What ``model_max_length`` is where nothing limits it, as in Hugging Face files."""
SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MAX_TOKENIZER_BYTES = 256_000_000
_SIDES = ("right", "left")
_BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
_ROBERTA = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
_GPT2 = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
_WITHOUT_TYPES = (
    "DistilBert",
    "Roberta",
    "Camembert",
    "GPT2",
    "Bart",
    "MPNet",
    "Longformer",
    "Llama",
    "Qwen2",
    "ModernBert",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """What is known of a tokenizer besides the mapping of text to ids.

    Raises:
        ValueError: If a field has a value that it cannot have.
    """

    special_tokens: Mapping[str, str] = field(default_factory=dict)
    """Text of each special token by its name, ``pad_token`` and so on."""
    additional_special_tokens: tuple[str, ...] = ()
    model_max_length: int = UNLIMITED
    """Most tokens of a text, special ones included."""
    padding_side: str = "right"
    truncation_side: str = "right"
    has_token_type_ids: bool | None = None
    """Whether the model takes token types; None lets the post-processor tell: whether a second text gets another type."""
    extra: Mapping[str, Any] = field(default_factory=dict)  # Any: keys of tokenizer_config.json that mean nothing here
    """Further keys of ``tokenizer_config.json``, written back as they were."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.special_tokens) - set(SPECIAL_NAMES))
        if unknown:
            raise ValueError(f"unknown special tokens {unknown}; choose from {list(SPECIAL_NAMES)}")
        for side in (self.padding_side, self.truncation_side):
            if side not in _SIDES:
                raise ValueError(f"unknown side {side!r}; choose from {list(_SIDES)}")
        if self.model_max_length < 1:
            raise ValueError(f"model_max_length must be at least 1, got {self.model_max_length}")


def read_tokenizer(folder: Path) -> tuple[Backend, TokenizerConfig]:
    """Read the tokenizer of a folder.

    ``tokenizer.json`` is used as it is, but for the truncation and padding of the run that saved it. Without it one is
    built from ``vocab.txt``, or from ``vocab.json`` and ``merges.txt``.

    Raises:
        FileNotFoundError: If the folder has no tokenizer.
        TokenizerError: If a file is damaged or its parts contradict each other.
    """
    raw = _read_optional(folder / "tokenizer_config.json")
    named = _special_tokens({**_read_optional(folder / "special_tokens_map.json"), **raw})
    path = folder / "tokenizer.json"
    if path.exists():
        backend = parse_backend(path, max_bytes=MAX_TOKENIZER_BYTES)
        named = named or _usual_names(backend)
    else:
        backend, defaults = build_backend(folder, raw, named)
        named = {**defaults, **named}
    _add_tokens(backend, _listed_tokens(folder, raw), folder)
    for name, text in named.items():
        if backend.token_to_id(text) is None:
            raise TokenizerError(f"the vocabulary lacks {text!r}", path=folder, field=name)
    check_ids(backend, folder)
    return backend, _config(raw, named, folder)


def write_tokenizer(folder: Path, backend: Backend, config: TokenizerConfig) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` so that ``transformers.AutoTokenizer`` reads the same.

    Args:
        folder: An existing folder.
        backend: Without truncation and padding.
        config: What goes into ``tokenizer_config.json``; keys of the original that mean nothing here are kept.
    """
    values: dict[str, Any] = {**config.extra}  # Any: JSON
    values.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    values["model_max_length"] = config.model_max_length
    for name in ("padding_side", "truncation_side"):
        if getattr(config, name) != "right" or name in values:
            values[name] = getattr(config, name)
    for name, text in config.special_tokens.items():
        if token_text(values.get(name)) != text:
            values[name] = text
    write_text(folder / "tokenizer.json", backend.to_str(pretty=True))
    write_json(folder / "tokenizer_config.json", values, sort_keys=True)


def _read_optional(path: Path) -> dict[str, Any]:  # Any: JSON
    return read_json_object(path, max_bytes=16_000_000, error=TokenizerError) if path.exists() else {}


def _special_tokens(raw: Mapping[str, Any]) -> dict[str, str]:  # Any: JSON
    found = {name: token_text(raw.get(name)) for name in SPECIAL_NAMES}
    return {name: text for name, text in found.items() if text is not None}


def _usual_names(backend: Backend) -> dict[str, str]:
    """Name the special tokens of a tokenizer that came without a configuration, by their usual texts."""
    special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    for style, sign in ((_BERT, "[CLS]"), (_ROBERTA, "<mask>"), (_GPT2, "<|endoftext|>")):
        if sign in special:
            return {name: text for name, text in style.items() if text in special}
    return {name: text for name, text in _ROBERTA.items() if name[:3] not in ("cls", "sep") and text in special}


def _listed_tokens(folder: Path, raw: Mapping[str, Any]) -> dict[int, AddedToken]:  # Any: JSON
    """Collect tokens by id that transformers keeps outside the vocabulary file."""
    listed: dict[int, AddedToken] = {}
    for text, number in _read_optional(folder / "added_tokens.json").items():
        listed[int(number)] = AddedToken(text, normalized=False)
    for number, token in (raw.get("added_tokens_decoder") or {}).items():
        flags = {flag: bool(token.get(flag)) for flag in ("lstrip", "rstrip", "normalized", "single_word", "special")}
        listed[int(number)] = AddedToken(str(token_text(token)), **flags)
    return dict(sorted(listed.items()))


def _add_tokens(backend: Backend, listed: Mapping[int, AddedToken], folder: Path) -> None:
    for number, token in listed.items():
        if backend.token_to_id(token.content) is None:
            backend.add_tokens([token])
        if backend.token_to_id(token.content) != number:
            found = backend.token_to_id(token.content)
            raise TokenizerError(
                f"the token {token.content!r} has the id {found}, added tokens say {number}", path=folder
            )


def _config(raw: Mapping[str, Any], named: Mapping[str, str], folder: Path) -> TokenizerConfig:  # Any: JSON
    additional = raw.get("additional_special_tokens") or raw.get("extra_special_tokens") or []
    texts = additional.values() if isinstance(additional, dict) else additional
    inputs, class_name = raw.get("model_input_names"), str(raw.get("tokenizer_class") or "")
    types = "token_type_ids" in inputs if inputs else (False if class_name.startswith(_WITHOUT_TYPES) else None)
    limit = raw.get("model_max_length") or UNLIMITED
    try:
        return TokenizerConfig(
            special_tokens=named,
            additional_special_tokens=tuple(filter(None, map(token_text, texts))),
            model_max_length=int(min(limit, UNLIMITED)),
            padding_side=raw.get("padding_side", "right"),
            truncation_side=raw.get("truncation_side", "right"),
            has_token_type_ids=types,
            extra=raw,
        )
    except (TypeError, ValueError) as reason:
        raise TokenizerError(str(reason), path=folder / "tokenizer_config.json") from reason
