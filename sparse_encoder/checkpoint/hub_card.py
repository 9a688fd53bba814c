"""The README of a repository: its front matter gets tags, its text stays. Knows no model."""

from __future__ import annotations

from collections.abc import Iterable

README = "README.md"
LIBRARY = "sparse-encoder"
PLACEHOLDER_ID = "sparse_encoder_model_id"
"""Stands in the usage code of a card until the model has a name; sentence-transformers writes the same."""


def named_card(text: str, model_id: str) -> str:
    """Return a README whose usage code names the model, if it named none."""
    placeholder, own = (f'SparseEncoder("{name}"' for name in (PLACEHOLDER_ID, model_id))
    return text.replace(placeholder, own)


def tagged_card(text: str | None, tags: Iterable[str], *, body: str) -> str:
    """Return a README whose front matter has some tags besides those that it has.

    Args:
        text: The README that is there, which keeps its text and its other keys; ``None`` makes a new one.
        tags: The tags, each once in the result and in this order behind those that are there.
        body: Text of a new README.

    Raises:
        ValueError: If the front matter of ``text`` is damaged.
    """
    from huggingface_hub import ModelCard, ModelCardData  # heavy, and of use only here

    if text is None:
        card = ModelCard(f"---\n{ModelCardData(library_name=LIBRARY).to_yaml()}\n---\n\n{body}")
    else:
        card = ModelCard(text)
    known = card.data.get("tags") or []
    known = [known] if isinstance(known, str) else known
    wanted = list(dict.fromkeys([*known, *tags]))
    if text is not None and wanted == known:
        return text
    card.data["tags"] = wanted or None
    return str(card)
