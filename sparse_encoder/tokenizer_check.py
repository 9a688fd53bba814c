"""Judges a tokenizer.json before the Rust library parses it, and turns that library's errors into ours."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from tokenizers import Regex
from tokenizers import Tokenizer as Backend
from tokenizers.pre_tokenizers import Split

from sparse_encoder.checkpoint.errors import TokenizerError
from sparse_encoder.checkpoint.json_files import parse_json
from sparse_encoder.checkpoint.paths import read_limited

MAX_TOKENIZER_BYTES = 256_000_000
MAX_WORD_CHARACTERS = 1000
MAX_UNUSED_IDS = 1024
"""Real vocabularies have a few holes, where a token was listed twice."""
_LOOK_IT_UP = ("WordLevel", "WordPiece")
"""Models that fail on an unknown word if their token for it is only an added one."""
PROBE_SECONDS = 0.5
PROBE_LENGTHS = (26, 512)
PROBE_CHARACTERS = "aA1 .\n一é"

logger = logging.getLogger(__name__)


@contextmanager
def rust_errors(what: str, path: str | PathLike[str] | None = None) -> Iterator[None]:
    """Turn errors and panics of the tokenizers library into :class:`TokenizerError`.

    The library raises bare ``Exception``, and on a panic something that is not even that; type errors pass.
    """
    try:
        yield
    except BaseException as reason:
        is_panic = type(reason).__name__ == "PanicException"
        if is_panic or type(reason) is Exception or isinstance(reason, (ValueError, OverflowError)):
            if isinstance(reason, TokenizerError):
                raise
            raise TokenizerError(f"{what}: {reason}", path=path) from reason
        raise


def parse_backend(path: Path) -> Backend:
    """Read a ``tokenizer.json``, without the truncation and padding in it.

    A word limit above 1000 characters is lowered to that, with a log entry: matching takes more than its square.

    Raises:
        TokenizerError: If it is no tokenizer, an id is doubled, negative or far above the number of tokens, or a
            pattern in it runs away.
    """
    data = read_limited(path, max_bytes=MAX_TOKENIZER_BYTES, error=TokenizerError)
    content = parse_json(data, path=path, error=TokenizerError)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise TokenizerError("must be a JSON object with a model", path=path)
    added = _added_tokens(content, path)
    words = _by_token(content["model"].get("vocab"), path)
    vocabulary = {**words, **added}
    check_ids(vocabulary, path)
    unknown = content["model"].get("unk_token")
    known = words if content["model"].get("type") in _LOOK_IT_UP else vocabulary
    if isinstance(unknown, str) and unknown not in known:
        raise TokenizerError(f"the vocabulary lacks {unknown!r}", path=path, field="unk_token")
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        for pattern in _patterns(content.get(part)):
            _probe(pattern, path)
    if _override(content, path):
        data = json.dumps(content).encode()
    with rust_errors("is no tokenizer", path):
        backend = Backend.from_buffer(data)
        around = {*backend.encode("").ids, *backend.encode("", "").ids}  # what is put around any text
    if not around <= set(vocabulary.values()):
        raise TokenizerError(f"puts ids around a text that no token has, {sorted(around)}", path=path)
    for token, number in added.items():
        if backend.token_to_id(token) != number:
            raise TokenizerError(
                f"{token!r} has the id {backend.token_to_id(token)}, not {number}", path=path, field="added_tokens"
            )
    return backend


def check_ids(vocabulary: Mapping[str, object], path: Path) -> None:
    """Refuse ids that are doubled, negative or so large that they point outside any embedding of this vocabulary.

    Raises:
        TokenizerError: Naming a token at fault.
    """
    if not vocabulary:
        raise TokenizerError("must hold at least one token", path=path, field="vocab")
    tokens: dict[int, str] = {}
    for token, number in vocabulary.items():
        if type(number) is not int or number < 0:
            raise TokenizerError(
                f"ids must be integers of 0 or more, {token!r} has {number!r}", path=path, field="vocab"
            )
        if number in tokens:
            raise TokenizerError(
                f"{tokens[number]!r} and {token!r} have the same id {number}", path=path, field="vocab"
            )
        tokens[number] = token
    largest = max(tokens)
    if largest + 1 - len(tokens) > MAX_UNUSED_IDS:
        raise TokenizerError(
            f"{len(tokens)} tokens cannot have ids up to {largest}, of {tokens[largest]!r}", path=path, field="vocab"
        )


def check_token_count(num_tokens: int, num_rows: int, path: Path | None = None) -> None:
    """Refuse a tokenizer with tokens that a model has no embedding for.

    Args:
        num_tokens: Of the tokenizer.
        num_rows: Embeddings of the model.
        path: Where both were read, if they come from one folder.

    Raises:
        TokenizerError: If there are more tokens, and a folder is at fault.
        ValueError: If there are more tokens.
    """
    if num_tokens > num_rows:
        rule = f"the tokenizer has {num_tokens} tokens, the model embeddings for {num_rows} of them"
        if path is not None:
            raise TokenizerError(rule, path=path)
        raise ValueError(f"{rule}; after new tokens call auto_model.resize_token_embeddings(len(tokenizer))")


def _by_token(vocabulary: object, path: Path) -> dict[str, object]:
    if isinstance(vocabulary, dict):
        return vocabulary
    if isinstance(vocabulary, list) and all(
        isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) for item in vocabulary
    ):
        tokens: dict[str, object] = {item[0]: number for number, item in enumerate(vocabulary)}  # Unigram
        return tokens
    raise TokenizerError("must be an object of ids or a list of scored tokens", path=path, field="vocab")


def _added_tokens(content: dict[str, Any], path: Path) -> dict[str, int]:  # Any: JSON
    listed = content.get("added_tokens") or []
    if not isinstance(listed, list) or not all(
        isinstance(token, dict) and isinstance(token.get("content"), str) for token in listed
    ):
        raise TokenizerError("must be a list of tokens", path=path, field="added_tokens")
    return {token["content"]: token.get("id") for token in listed}


def _override(content: dict[str, Any], path: Path) -> bool:  # Any: JSON
    """Take out what must not stay; returns whether there was any."""
    changed = content.get("truncation") is not None or content.get("padding") is not None
    content["truncation"] = content["padding"] = None
    limit = content["model"].get("max_input_chars_per_word")
    if isinstance(limit, int) and limit > MAX_WORD_CHARACTERS:
        logger.warning("%s: max_input_chars_per_word is %d and was lowered to %d", path, limit, MAX_WORD_CHARACTERS)
        content["model"]["max_input_chars_per_word"] = MAX_WORD_CHARACTERS
        changed = True
    return changed


def _patterns(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("Regex"), str):
            yield part["Regex"]
        part = list(part.values())
    if isinstance(part, list):
        for item in part:
            yield from _patterns(item)


def _probe(pattern: str, path: Path) -> None:
    """Try a pattern on runs of its own characters: one with nested repetitions takes too long there, or panics."""
    characters = sorted({*pattern[:2000], *PROBE_CHARACTERS})
    tail = "\x00" + "".join(characters)  # so that no pattern is given up at a glance for want of a character
    with rust_errors(f"the pattern {pattern[:80]!r} cannot be used", path):
        split = Split(Regex(pattern), "isolated")
        started = time.monotonic()
        for text in (character * length + tail for character in characters for length in PROBE_LENGTHS):
            split.pre_tokenize_str(text)
            if time.monotonic() - started > PROBE_SECONDS:
                raise TokenizerError(f"the pattern {pattern[:80]!r} is too slow", path=path)
