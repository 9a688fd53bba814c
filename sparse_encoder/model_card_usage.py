"""The part of a README that shows how to use a SparseEncoder, with what it gives for texts of its training data."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparse_encoder.model_card_markdown import fence
from sparse_encoder.modules import SparseAutoEncoder

if TYPE_CHECKING:
    from sparse_encoder.model import SparseEncoder

logger = logging.getLogger(__name__)

EXAMPLES = ("what causes rain?", "Clouds form drops.", "Bread is baked from flour and water.")
"""A query and documents for models that nothing better is known for."""


def usage_code(model: SparseEncoder, name: str, examples: list[str]) -> str:
    """Write the code that encodes and compares texts.

    Args:
        model: Run on the examples if there are any.
        name: What to load.
        examples: A query, then documents; empty takes :data:`EXAMPLES` and shows no results.
    """
    query, *documents = examples or EXAMPLES
    shape, scores = ("", "") if not examples else _results(model, query, documents)
    words = not any(isinstance(module, SparseAutoEncoder) for module in model.modules())
    lines = [
        "from sparse_encoder import SparseEncoder",
        "",
        f'model = SparseEncoder("{name}")',
        f"query_embeddings = model.encode_query({[query]!r})",
        f"document_embeddings = model.encode_document({_listed(documents)})",
        "print(query_embeddings.shape, document_embeddings.shape)",
        *([f"# {shape}"] if shape else []),
        "print(model.similarity(query_embeddings, document_embeddings))  # one row per query, one column per document",
        *([f"# {scores}"] if scores else []),
        *(["print(model.decode(query_embeddings[0], top_k=5))  # the terms that weigh most"] if words else []),
    ]
    return fence("\n".join(lines), "python")


def _listed(texts: list[str]) -> str:
    """Write a list of texts, on several lines if they are long."""
    line = repr(texts)
    if len(line) <= 80:
        return line
    return "[\n" + "".join(f"    {text!r},\n" for text in texts) + "]"


def _results(model: SparseEncoder, query: str, documents: list[str]) -> tuple[str, str]:
    """Return shapes and similarities of texts as the code prints them; nothing if the model cannot run here.

    That is so while its weights are elsewhere or shared out among processes (FSDP), if they are not finite, if it has
    other tasks than these two, and where torch is told to refuse what is not deterministic, as some of what encodes is
    on accelerators.
    """
    if hasattr(model, "reshard") or any(weight.is_meta for weight in model.parameters()):  # the first: FSDP's mark
        return "", ""
    if torch.are_deterministic_algorithms_enabled():
        return "", ""
    try:
        queries = model.encode_query([query], convert_to_tensor=True, show_progress_bar=False)
        found = model.encode_document(documents, convert_to_tensor=True, show_progress_bar=False)
    except ValueError as reason:
        logger.warning("the README shows no results of the model on its examples: %s", reason)
        return "", ""
    assert isinstance(queries, Tensor) and isinstance(found, Tensor)
    scores = model.similarity(queries, found)
    rows = ", ".join(f"[{', '.join(f'{score:.4f}' for score in row)}]" for row in scores.tolist())
    return f"torch.Size({list(queries.shape)}) torch.Size({list(found.shape)})", f"tensor([{rows}])"
