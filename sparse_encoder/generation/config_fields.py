"""The fields of a generation config: what each may hold, what holds where nothing is said, and which are not offered.

A table and plain functions; knows nothing of files, models or of how fields go together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from math import isfinite, isnan
from numbers import Integral, Real
from typing import NoReturn

_LARGEST_INTEGER = (1 << 63) - 1  # what a tensor of token ids holds
_MOST_ENTRIES = 1_000_000  # beyond any vocabulary

NO_TOKEN = -1
"""An end token that no text has: where a model names others, it takes them away, which None does not."""

CACHES = ("dynamic", "static")
"""What ``cache_implementation`` may name."""


class FieldError(ValueError):
    """A field of a generation config breaks a rule.

    Args:
        field: Its name.
        rule: What must hold, and the value that does not.
    """

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field} {rule}")
        self.field = field
        self.rule = rule

    def __reduce__(self) -> tuple[type[FieldError], tuple[str, str]]:
        """Make the error anew from its two parts, as processes that hand it on do."""
        return FieldError, (self.field, self.rule)


def _wrong(field: str, rule: str, value: object) -> NoReturn:
    raise FieldError(field, f"must be {rule}, got {value!r:.100}")


def _boolean(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        _wrong(field, "true or false", value)
    return value


def _integer(field: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or abs(int(value)) > _LARGEST_INTEGER:
        _wrong(field, "an integer of 64 bits", value)
    return int(value)


def _number(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not isfinite(value):
        _wrong(field, "a finite number", value)
    return float(value)


def _count(least: int, hint: str = "") -> Callable[[str, object], int]:
    """Make the check of an integer that is not below a bound."""

    def check(field: str, value: object) -> int:
        number = _integer(field, value)
        if number < least:
            _wrong(field, f"at least {least}{hint}", value)
        return number

    return check


def _between(rule: str, is_right: Callable[[float], bool]) -> Callable[[str, object], float]:
    """Make the check of a number that a rule holds for."""

    def check(field: str, value: object) -> float:
        number = _number(field, value)
        if not is_right(number):
            _wrong(field, rule, value)
        return number

    return check


_part = _between("at least 0 and at most 1", lambda number: 0 <= number <= 1)
_part_above_0 = _between("above 0 and at most 1", lambda number: 0 < number <= 1)
_cutoff = _between("at least 0 and below 1", lambda number: 0 <= number < 1)
_above_0 = _between("above 0", lambda number: number > 0)
_not_below_0 = _between("at least 0", lambda number: number >= 0)


def _bias(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or isnan(value):
        _wrong(field, "given with numbers as biases", value)
    return float(value)


def _entries(field: str, rule: str, value: object) -> list[object]:
    if not isinstance(value, (list, tuple)) or len(value) > _MOST_ENTRIES:
        _wrong(field, rule, value)
    return list(value)


def _tokens(field: str, value: object) -> list[int]:
    return [_integer(field, each) for each in _entries(field, "a list of token ids", value)]


def _token_or_tokens(field: str, value: object) -> int | list[int]:
    return _tokens(field, value) if isinstance(value, (list, tuple)) else _integer(field, value)


def _ends(field: str, value: object) -> int | list[int]:
    ids = _token_or_tokens(field, value)
    if ids == [] or min(ids if isinstance(ids, list) else [ids]) < 0:
        _wrong(field, "a token id of at least 0, or a list of such that is not empty; None for no end token", value)
    return ids


def _ends_or_none(field: str, value: object) -> int | list[int]:
    listed = value.tolist() if hasattr(value, "tolist") else value  # a tensor or an array
    ids = _token_or_tokens(field, listed)
    return NO_TOKEN if ids in (NO_TOKEN, [NO_TOKEN]) else _ends(field, ids)


def _suppressed(field: str, value: object) -> list[int]:
    ids = _tokens(field, value)
    if ids and min(ids) < 0:
        _wrong(field, "a list of token ids of at least 0", value)
    return ids


def _words(field: str, value: object) -> list[list[int]]:
    rule = "a list of lists of token ids of at least 0, none of them empty"
    words = [_tokens(field, each) for each in _entries(field, rule, value)]
    if not words or any(not word or min(word) < 0 for word in words):
        _wrong(field, rule, value)
    return words


def _texts(field: str, value: object) -> str | list[str]:
    rule = "a text or a list of texts, none of them empty"
    texts = [value] if isinstance(value, str) else _entries(field, rule, value)
    if not all(isinstance(text, str) and text for text in texts):
        _wrong(field, rule, value)
    return value if isinstance(value, str) else [str(text) for text in texts]


def _early_stopping(field: str, value: object) -> bool | str:
    if not isinstance(value, bool) and value != "never":
        _wrong(field, "true, false or 'never'", value)
    return "never" if isinstance(value, str) else bool(value)


def _cache(field: str, value: object) -> str:
    if not isinstance(value, str) or value not in CACHES:
        _wrong(field, f"one of {list(CACHES)}", value)
    return value


def _decay(field: str, value: object) -> tuple[int, float]:
    rule = "a pair of the number of tokens to wait, at least 0, and a factor above 0"
    entries = _entries(field, rule, value)
    if len(entries) != 2:
        _wrong(field, rule, value)
    wait, factor = _integer(field, entries[0]), _number(field, entries[1])
    if wait < 0 or factor <= 0:
        _wrong(field, rule, value)
    return wait, factor


def _sequence_bias(field: str, value: object) -> dict[tuple[int, ...], float]:
    rule = "a dict from tuples of token ids to biases, or a list of pairs of a list of token ids and a bias"
    pairs: list[tuple[object, object]] = []
    if isinstance(value, Mapping):
        if not all(isinstance(key, tuple) for key in value):
            _wrong(field, rule, value)
        pairs = list(value.items())
    else:
        for each in _entries(field, rule, value):
            if not isinstance(each, (list, tuple)) or len(each) != 2:
                _wrong(field, rule, value)
            pairs.append((each[0], each[1]))
    biases = {tuple(_tokens(field, tokens)): _bias(field, bias) for tokens, bias in pairs}
    if not biases or any(not tokens or min(tokens) < 0 for tokens in biases):
        _wrong(field, f"{rule}, not empty, of ids of at least 0", value)
    return biases


FIELDS: Mapping[str, Callable[[str, object], object]] = {
    "max_length": _count(0),
    "max_new_tokens": _count(1),
    "min_length": _count(0),
    "min_new_tokens": _count(0),
    "early_stopping": _early_stopping,
    "max_time": _not_below_0,
    "stop_strings": _texts,
    "do_sample": _boolean,
    "num_beams": _count(1),
    "use_cache": _boolean,
    "cache_implementation": _cache,
    "max_cache_len": _count(1),
    "temperature": _not_below_0,
    "top_k": _count(0, "; 0 and None leave every token"),
    "top_p": _part,
    "min_p": _part,
    "top_h": _part_above_0,
    "typical_p": _part_above_0,
    "epsilon_cutoff": _cutoff,
    "eta_cutoff": _cutoff,
    "repetition_penalty": _above_0,
    "encoder_repetition_penalty": _above_0,
    "length_penalty": _number,
    "no_repeat_ngram_size": _count(0),
    "encoder_no_repeat_ngram_size": _count(0),
    "bad_words_ids": _words,
    "renormalize_logits": _boolean,
    "forced_bos_token_id": _count(0),
    "forced_eos_token_id": _ends,
    "remove_invalid_values": _boolean,
    "exponential_decay_length_penalty": _decay,
    "suppress_tokens": _suppressed,
    "begin_suppress_tokens": _suppressed,
    "sequence_bias": _sequence_bias,
    "num_return_sequences": _count(1),
    "output_attentions": _boolean,
    "output_hidden_states": _boolean,
    "output_scores": _boolean,
    "output_logits": _boolean,
    "return_dict_in_generate": _boolean,
    "pad_token_id": _integer,
    "bos_token_id": _integer,
    "eos_token_id": _ends_or_none,
    "decoder_start_token_id": _token_or_tokens,
}
"""Every field, with what checks a value that is not None and gives it the one type that the field has."""

DEFAULTS: Mapping[str, object] = {
    "max_length": 20,
    "min_length": 0,
    "do_sample": False,
    "use_cache": True,
    "early_stopping": False,
    "num_beams": 1,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "num_return_sequences": 1,
    "output_scores": False,
    "return_dict_in_generate": False,
    "remove_invalid_values": False,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "encoder_repetition_penalty": 1.0,
}
"""What holds in `generate` where neither a call nor a config says anything; a field that is not here stays None."""

NOT_OFFERED: Mapping[str, tuple[object, ...]] = {
    "assistant_confidence_threshold": (0.4,),
    "assistant_early_exit": (),
    "assistant_ensemble_weight": (),
    "assistant_lookbehind": (10,),
    "cache_config": (),
    "compile_config": (),
    "constraints": (),
    "continuous_batching_config": (),
    "disable_compile": (False, True),
    "diversity_penalty": (0,),
    "dola_layers": (),
    "force_words_ids": (),
    "guidance_scale": (1,),
    "is_assistant": (False,),
    "low_memory": (False,),
    "max_matching_ngram_size": (),
    "num_assistant_tokens": (20,),
    "num_assistant_tokens_schedule": ("constant",),
    "num_beam_groups": (1,),
    "penalty_alpha": (0,),
    "prefill_chunk_size": (),
    "prompt_lookup_num_tokens": (),
    "speculation_type": (),
    "target_lookbehind": (10,),
    "token_healing": (False,),
    "use_mtp": (False,),
    "watermarking_config": (),
}
"""Fields of transformers that are not offered, and the values besides None with which they would do nothing."""

IDLE_IN_FILES = (
    "assistant_confidence_threshold",
    "assistant_ensemble_weight",
    "assistant_lookbehind",
    "cache_config",
    "compile_config",
    "continuous_batching_config",
    "disable_compile",
    "diversity_penalty",
    "is_assistant",
    "low_memory",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "prefill_chunk_size",
    "speculation_type",
    "target_lookbehind",
)
"""Fields that are not offered and change no token by themselves: they are about assistants, groups of beams, memory and
speed. A file may hold them."""

IDLE_CACHES = (
    "hybrid",
    "hybrid_chunked",
    "offloaded",
    "offloaded_hybrid",
    "offloaded_hybrid_chunked",
    "offloaded_static",
    "paged",
    "sliding_window",
)
"""Kinds of cache that transformers writes into files and that are not offered: they keep the same keys and values, in
other places."""

ARGUMENTS_OF_GENERATE = (
    "assistant_model",
    "generator",
    "logits_processor",
    "negative_prompt_attention_mask",
    "negative_prompt_ids",
    "prefix_allowed_tokens_fn",
    "stopping_criteria",
    "streamer",
    "synced_gpus",
    "tokenizer",
)
"""What is said in the call and is no part of a config."""


def checked(field: str, value: object) -> object:
    """Return a value in the one type that its field has.

    Args:
        field: Name of a field in :data:`FIELDS`.
        value: What it is to hold; None unsets it.

    Raises:
        FieldError: If the field cannot hold it.
    """
    return None if value is None else FIELDS[field](field, value)


def check_not_offered(field: str, value: object) -> None:
    """Let a field of transformers pass that is not offered here and would do nothing.

    Args:
        field: Name of a field in :data:`NOT_OFFERED`.
        value: What it holds.

    Raises:
        FieldError: If it would do something.
    """
    does_nothing = NOT_OFFERED[field]
    if value is not None and not any(type(value) in (type(each), float) and value == each for each in does_nothing):
        others = f" or {' or '.join(map(repr, does_nothing))}" if does_nothing else ""
        raise FieldError(field, f"is not offered: leave it out, or give None{others}; got {value!r:.100}")


def is_field(name: str) -> bool:
    """Return whether a config may be told something by this name, though perhaps only that it is to do nothing."""
    return name in FIELDS or name in NOT_OFFERED


def check_name(field: str) -> None:
    """Refuse a name that a config does not have.

    Raises:
        FieldError: If it belongs into the call of `generate`.
        TypeError: If nothing is called so.
    """
    if is_field(field):
        return
    if field in ARGUMENTS_OF_GENERATE:
        raise FieldError(field, "is no part of a generation config; give it to generate() itself")
    near = get_close_matches(field, FIELDS, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else f"; choose from {sorted(FIELDS)}"
    raise TypeError(f"a generation config has no field {field!r}{meant}")
