"""Judges a tokenizer.json before and after the Rust library parses it, and turns that library's errors into ours."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
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

MAX_WORD_CHARACTERS = 1000
MAX_UNUSED_IDS = 1024
PROBE_SECONDS = 0.5


@contextmanager
def rust_errors(what: str, path: str | PathLike[str] | None = None) -> Iterator[None]:
    """Turn errors and panics of the tokenizers library into :class:`TokenizerError`."""
    try:
        yield
    except (TokenizerError, TypeError, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as reason:  # the library raises bare Exceptions, and panics that are not even those
        if isinstance(reason, Exception) or type(reason).__name__ == "PanicException":
            raise TokenizerError(f"{what}: {reason}", path=path) from reason
        raise


def parse_backend(path: Path, *, max_bytes: int) -> Backend:
    """Read a ``tokenizer.json``, without the truncation and padding in it.

    A word limit above 1000 characters is lowered to that: matching takes more than the square of it.

    Raises:
        TokenizerError: If it is no tokenizer, ids are doubled or negative, or a pattern in it runs away.
    """
    data = read_limited(path, max_bytes=max_bytes, error=TokenizerError)
    content = parse_json(data, path=path, error=TokenizerError)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise TokenizerError("must be a JSON object with a model", path=path)
    _check_vocabulary(content["model"].get("vocab"), path)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        for pattern in _patterns(content.get(part)):
            _probe(pattern, path)
    if _override(content):
        data = json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")
    with rust_errors("is no tokenizer", path):
        backend = Backend.from_buffer(data)
    for token in content.get("added_tokens") or []:
        if backend.token_to_id(token["content"]) != token["id"]:
            raise TokenizerError(
                f"{token['content']!r} is not at its id {token['id']}", path=path, field="added_tokens"
            )
    return backend


def _override(content: dict[str, Any]) -> bool:  # Any: JSON
    """Take out what must not stay; returns whether there was any."""
    changed = content.get("truncation") is not None or content.get("padding") is not None
    content["truncation"] = content["padding"] = None
    limit = content["model"].get("max_input_chars_per_word")
    if isinstance(limit, int) and limit > MAX_WORD_CHARACTERS:
        content["model"]["max_input_chars_per_word"] = MAX_WORD_CHARACTERS
        changed = True
    return changed


def _check_vocabulary(vocabulary: object, path: Path) -> None:
    if isinstance(vocabulary, list):  # Unigram: the place is the id
        return
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise TokenizerError("must be an object or a list with at least one token", path=path, field="model.vocab")
    ids = list(vocabulary.values())
    if set(map(type, ids)) != {int} or min(ids) < 0:
        raise TokenizerError("ids must be integers of 0 or more", path=path, field="model.vocab")
    if len(set(ids)) < len(ids):
        raise TokenizerError("two tokens have the same id", path=path, field="model.vocab")


def check_ids(backend: Backend, path: Path) -> None:
    """Refuse a vocabulary with ids far above its size: they would point outside any embedding.

    Raises:
        TokenizerError: If more than 1024 ids below the largest are unused.
    """
    vocabulary = backend.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise TokenizerError("the vocabulary is empty", path=path)
    largest = max(vocabulary.values())
    if largest + 1 - len(vocabulary) > MAX_UNUSED_IDS:
        raise TokenizerError(f"{len(vocabulary)} tokens have ids up to {largest}", path=path, field="model.vocab")


def _patterns(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("Regex"), str):
            yield part["Regex"]
        part = list(part.values())
    if isinstance(part, list):
        for item in part:
            yield from _patterns(item)


def _probe(pattern: str, path: Path) -> None:
    """Try a pattern on runs of each character in it; one with nested repetition panics or takes too long."""
    characters = sorted({*pattern[:2000], *"aA1 .\n一"})
    with rust_errors(f"the pattern {pattern[:80]!r} cannot be used", path):
        split = Split(Regex(pattern), "isolated")
        started = time.monotonic()
        for character in characters:
            for length in (26, 512):
                split.pre_tokenize_str(character * length + "\x00")
                if time.monotonic() - started > PROBE_SECONDS:
                    raise TokenizerError(f"the pattern {pattern[:80]!r} is too slow", path=path)
