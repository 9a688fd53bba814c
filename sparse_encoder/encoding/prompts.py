"""Prompts: which text is put before an input. It knows names and strings, not tokens."""

from __future__ import annotations

import logging
from collections.abc import Mapping

logger = logging.getLogger(__name__)

DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names under which models save what belongs before a document, in order of preference."""


def merge_prompts(given: Mapping[str, str | None] | None, saved: Mapping[str, str | None] | None) -> dict[str, str]:
    """Combine the prompts of a call with those of a saved model.

    Given prompts win; saved ones fill only names that are absent or ``None``; what is left becomes ``""``. So
    ``{"query": "", "document": ""}`` switches saved prompts off.

    Args:
        given: Prompts by name, from the caller.
        saved: Prompts by name, from the model's folder.

    Returns:
        Prompts by name; ``query`` and ``document`` are always there.

    Raises:
        TypeError: If the prompts are no mapping, or one is neither a string nor ``None``.
    """
    for told in (given, saved):
        if told is not None and not isinstance(told, Mapping):
            raise TypeError(f"prompts must be a mapping of names to strings, got {type(told).__name__}")
    prompts: dict[str, str | None] = {"query": None, "document": None, **(given or {})}
    for name, prompt in (saved or {}).items():
        if prompts.get(name) is None:
            prompts[name] = prompt
    for name, prompt in prompts.items():
        if prompt is not None and not isinstance(prompt, str):
            raise TypeError(f"prompt {name!r} must be a string, got {type(prompt).__name__}")
    return {name: prompt or "" for name, prompt in prompts.items()}


def check_default_prompt_name(name: str | None, prompts: Mapping[str, str]) -> None:
    """Reject the name of a default prompt that does not exist.

    Raises:
        ValueError: If ``name`` is not a key of ``prompts``.
    """
    if name is not None and name not in prompts:
        raise ValueError(f"unknown default_prompt_name {name!r}; choose from {sorted(prompts)}")


def resolve_prompt(
    prompts: Mapping[str, str], *, prompt: str | None, prompt_name: str | None, default_prompt_name: str | None
) -> str:
    """Find the prompt of one call: ``prompt``, else the named one, else the default one, else none.

    Args:
        prompts: Prompts by name.
        prompt: The prompt itself; it wins over a name, with a warning.
        prompt_name: A key of ``prompts``.
        default_prompt_name: The key to use when neither is given.

    Returns:
        The text to put before each input, as it is; ``""`` for none.

    Raises:
        ValueError: If a name is not a key of ``prompts``.
    """
    if prompt is not None:
        if prompt_name is not None:
            logger.warning("both prompt and prompt_name=%r were given: prompt wins", prompt_name)
        return prompt
    name = default_prompt_name if prompt_name is None else prompt_name
    if name is None:
        return ""
    if name not in prompts:
        raise ValueError(f"unknown prompt_name {name!r}; choose from {sorted(prompts)}")
    return prompts[name]


def query_prompt_name(prompts: Mapping[str, str]) -> str | None:
    """Name the prompt of queries: ``query`` if there is one, be it empty."""
    return "query" if "query" in prompts else None


def document_prompt_name(prompts: Mapping[str, str]) -> str | None:
    """Name the prompt of documents: the first of :data:`DOCUMENT_PROMPTS` that is not empty, else the first there is.

    sentence-transformers takes the first that exists, which is always ``document``: there a model that saved only a
    ``passage`` or ``corpus`` prompt encodes documents without it.
    """
    there = [name for name in DOCUMENT_PROMPTS if name in prompts]
    return next((name for name in there if prompts[name]), there[0] if there else None)
