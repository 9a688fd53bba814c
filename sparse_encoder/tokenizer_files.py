"""Reads and writes a tokenizer's folder: tokenizer.json, tokenizer_config.json and what older versions left beside.

Knows the dialects of transformers 4 and 5; knows neither models nor tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from sparse_encoder.checkpoint.atomic import write_json, write_text
from sparse_encoder.checkpoint.errors import TokenizerError
from sparse_encoder.checkpoint.json_files import read_json_object
from sparse_encoder.checkpoint.paths import resolve_inside
from sparse_encoder.tokenizer_build import BERT_TOKENS, GPT2_TOKENS, ROBERTA_TOKENS, build_backend
from sparse_encoder.tokenizer_check import parse_backend, rust_errors

UNLIMITED = 10**30
"""What ``model_max_length`` is where nothing limits it, as in Hugging Face files."""
SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MAX_CONFIG_BYTES = 16_000_000
"""Tokenizers with thousands of added tokens list them in tokenizer_config.json."""
_SIDES = ("right", "left")
_WITHOUT_TYPES = (
    "Bart",
    "Barthez",
    "BioGpt",
    "Blenderbot",
    "Bloom",
    "ByT5",
    "CLIP",
    "CTRL",
    "Camembert",
    "CodeGen",
    "CodeLlama",
    "Cohere",
    "DistilBert",
    "Esm",
    "GPT2",
    "GPTNeoX",
    "GPTSw3",
    "Gemma",
    "LED",
    "Llama",
    "Longformer",
    "M2M100",
    "MBart",
    "MPNet",
    "MT5",
    "Marian",
    "MyT5",
    "Nllb",
    "OpenAIGPT",
    "PLBart",
    "Pegasus",
    "Qwen",
    "Roberta",
    "SeamlessM4T",
    "T5",
    "Udop",
    "Whisper",
    "XGLM",
    "XLMRoberta",
)
"""Beginnings of classes that give no token types in transformers 4 and 5; what only 5 leaves out is not among them."""


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
    """Whether the model takes token types; None asks whether the post-processor gives a second text another type."""
    extra: Mapping[str, Any] = field(default_factory=dict)  # Any: keys of tokenizer_config.json that mean nothing here
    """Further keys of ``tokenizer_config.json``, written back as they were."""

    def __post_init__(self) -> None:
        """Check names, sides and the length."""
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
    built from ``vocab.txt``, or from ``vocab.json`` and ``merges.txt``. Special tokens are those that
    ``tokenizer_config.json`` names, else ``special_tokens_map.json``, else the usual ones among the special tokens of
    ``tokenizer.json``.

    Raises:
        FileNotFoundError: If the folder has no tokenizer.
        TokenizerError: If a file is damaged or its parts contradict each other.
    """
    raw = _read_optional(folder, "tokenizer_config.json")
    named = _special_tokens(_read_optional(folder, "special_tokens_map.json")) | _special_tokens(raw)
    if (folder / "tokenizer.json").exists():
        backend = parse_backend(resolve_inside(folder, "tokenizer.json", error=TokenizerError))
        named = named or _usual_tokens(backend)
    else:
        backend, usual = build_backend(folder, raw, named)
        named = usual | named
    _add_tokens(backend, _listed_tokens(folder, raw), folder)
    for name, text in named.items():
        if backend.token_to_id(text) is None:
            raise TokenizerError(f"the vocabulary lacks {text!r}", path=folder, field=name)
    _mark_special(backend, named)
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
        if name in values or getattr(config, name) != "right":
            values[name] = getattr(config, name)
    for name, text in config.special_tokens.items():
        if _token_text(values.get(name)) != text:
            values[name] = text
    if config.additional_special_tokens and "extra_special_tokens" not in values:
        values.setdefault("additional_special_tokens", list(config.additional_special_tokens))
    if config.has_token_type_ids is not None and "model_input_names" not in values:
        types = ["token_type_ids"] if config.has_token_type_ids else []
        values["model_input_names"] = ["input_ids", *types, "attention_mask"]
    write_text(folder / "tokenizer.json", backend.to_str(pretty=True))
    write_json(folder / "tokenizer_config.json", values, sort_keys=True)


def gives_token_types(backend: Backend) -> tuple[bool, bool]:
    """Tell whether the post-processor gives a token another type than 0: of one text, and of two.

    Of two texts only a template that ends in a special token counts, as ``[CLS] $A [SEP] $B [SEP]``. One that adds no
    token is what transformers gives to every tokenizer, and one that only begins with tokens is what it gives to
    decoders; both number the texts, and say nothing about the model.
    """
    state = {} if backend.post_processor is None else json.loads(backend.post_processor.__getstate__())
    steps = state.get("processors", [state])
    if any(step.get("type") == "BertProcessing" for step in steps):
        return False, True
    pieces = [[piece for step in steps for piece in step.get(form) or []] for form in ("single", "pair")]
    single, pair = ([part["type_id"] for piece in form for part in piece.values()] for form in pieces)
    ends_in_token = bool(pieces[1]) and "SpecialToken" in pieces[1][-1]
    return any(single), any(pair) and ends_in_token


def _read_optional(folder: Path, name: str) -> dict[str, Any]:  # Any: JSON
    if not (folder / name).exists():
        return {}
    return read_json_object(
        resolve_inside(folder, name, error=TokenizerError), max_bytes=MAX_CONFIG_BYTES, error=TokenizerError
    )


def _token_text(value: object) -> str | None:
    """Return the text of a special token: a string, or the object with ``content`` that transformers 4 wrote."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _special_tokens(values: Mapping[str, object]) -> dict[str, str]:
    found = {name: _token_text(values.get(name)) for name in SPECIAL_NAMES}
    return {name: text for name, text in found.items() if text is not None}


def _usual_tokens(backend: Backend) -> dict[str, str]:
    """Name the special tokens of a tokenizer that came without a configuration."""
    special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    for style, sign in ((BERT_TOKENS, "[CLS]"), (ROBERTA_TOKENS, "<mask>"), (GPT2_TOKENS, "<|endoftext|>")):
        if sign in special:
            return {name: text for name, text in style.items() if text in special}
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    return {name: ROBERTA_TOKENS[name] for name in names if ROBERTA_TOKENS[name] in special}


def _listed_tokens(folder: Path, raw: Mapping[str, Any]) -> dict[int, AddedToken]:  # Any: JSON
    """Collect, by id, tokens that are listed outside the vocabulary."""
    listed: dict[int, AddedToken] = {}
    added, decoder = _read_optional(folder, "added_tokens.json"), raw.get("added_tokens_decoder") or {}
    try:
        for text, number in added.items():
            listed[int(number)] = AddedToken(text, normalized=False)
        for number, token in decoder.items():
            flags = {
                name: bool(token.get(name)) for name in ("lstrip", "rstrip", "normalized", "single_word", "special")
            }
            listed[int(number)] = AddedToken(token["content"], **flags)
    except (AttributeError, KeyError, TypeError, ValueError) as reason:
        raise TokenizerError(f"added tokens must have ids and contents: {reason}", path=folder) from reason
    return dict(sorted(listed.items()))


def _add_tokens(backend: Backend, listed: Mapping[int, AddedToken], folder: Path) -> None:
    for number, token in listed.items():
        if backend.token_to_id(token.content) is None:
            with rust_errors(f"cannot add {token.content!r}", folder):
                backend.add_tokens([token])
        found = backend.token_to_id(token.content)
        if found != number:
            raise TokenizerError(f"{token.content!r} has the id {found}, its list says {number}", path=folder)


def _mark_special(backend: Backend, named: Mapping[str, str]) -> None:
    """Keep named special tokens whole in texts, and out of decoded ones, where the vocabulary holds them as words."""
    marked = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    if words := [text for text in dict.fromkeys(named.values()) if text not in marked]:
        backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in words])


def _config(raw: Mapping[str, Any], named: Mapping[str, str], folder: Path) -> TokenizerConfig:  # Any: JSON
    limit = UNLIMITED if raw.get("model_max_length") is None else raw["model_max_length"]
    try:
        if isinstance(limit, bool) or not isinstance(limit, (int, float)):
            raise TypeError(f"model_max_length must be a number, got {limit!r}")
        additional = raw.get("additional_special_tokens") or raw.get("extra_special_tokens") or []
        texts = additional.values() if isinstance(additional, dict) else additional
        return TokenizerConfig(
            special_tokens=named,
            additional_special_tokens=tuple(filter(None, map(_token_text, texts))),
            model_max_length=int(min(limit, UNLIMITED)),
            padding_side=raw.get("padding_side", "right"),
            truncation_side=raw.get("truncation_side", "right"),
            has_token_type_ids=_states_token_types(raw),
            extra=raw,
        )
    except (TypeError, ValueError) as reason:
        raise TokenizerError(str(reason), path=folder / "tokenizer_config.json") from reason


def _states_token_types(raw: Mapping[str, Any]) -> bool | None:  # Any: JSON
    """Return what files say; None leaves it to the template."""
    inputs = raw.get("model_input_names")
    if inputs:
        return "token_type_ids" in inputs
    return False if str(raw.get("tokenizer_class") or "").startswith(_WITHOUT_TYPES) else None
