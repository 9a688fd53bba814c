"""Models that hand out given embeddings, for evaluators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.similarity import SimilarityFunction

DIM = 17
FOUR_TERMS = {  # active: the first term; the first two; the third; the first and the third; none
    "a": [1.0, 0.0, 0.0, 0.0],
    "b": [2.0, 1.0, 0.0, 0.0],
    "c": [0.0, 0.0, 3.0, 0.0],
    "d": [1.0, 0.0, 1.0, 0.0],
    "e": [0.0, 0.0, 0.0, 0.0],
}
"""Term weights of short texts."""


class GivenModel:
    """Encodes a text as the row it was given for it, and remembers how it was asked."""

    def __init__(self, rows: dict[str, Tensor], similarity_fn_name: str = "dot") -> None:
        self.rows = rows
        self.similarity_fn_name = similarity_fn_name
        self.calls: list[dict[str, Any]] = []

    @property
    def similarity(self) -> Callable[..., Tensor]:
        return SimilarityFunction.to_similarity_fn(self.similarity_fn_name)

    def encode_query(self, inputs: list[str], **options: object) -> SparseEmbeddings:
        return self._encode("query", inputs, options)

    def encode_document(self, inputs: list[str], **options: object) -> SparseEmbeddings:
        return self._encode("document", inputs, options)

    def _encode(self, kind: str, texts: list[str], options: dict[str, Any]) -> SparseEmbeddings:
        self.calls.append({"kind": kind, "texts": texts, **options})
        rows = torch.stack([self.rows[text] for text in texts])
        return SparseEmbeddings.from_dense(rows, max_active_dims=options["max_active_dims"])


class GivenTextModel(GivenModel):
    """Also encodes texts that are neither queries nor documents."""

    def encode(self, inputs: list[str], **options: object) -> SparseEmbeddings:
        return self._encode("text", inputs, options)


def random_model(texts: list[str], seed: int = 0, density: float = 0.3, similarity_fn_name: str = "dot") -> GivenModel:
    """Make a model with random weights, and some texts that are alike."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(len(texts), DIM, generator=generator) + 0.1
    weights[torch.rand(len(texts), DIM, generator=generator) > density] = 0
    weights[1::7] = weights[0::7][: len(weights[1::7])]
    return GivenModel(dict(zip(texts, weights, strict=True)), similarity_fn_name)
