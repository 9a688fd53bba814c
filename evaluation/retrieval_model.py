"""What an evaluator of searches asks of a model: :class:`SparseEncoder` and :class:`BM25` have it."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from sparse_encoder.similarity import Embeddings


class RetrievalModel(Protocol):
    """Encodes queries and documents, and compares them."""

    @property
    def similarity_fn_name(self) -> str:
        """Name of the similarity."""

    def similarity(self, embeddings1: Any, embeddings2: Any, /) -> Tensor:  # noqa: ANN401  (of any kind)
        """Score all rows of one with all rows of the other."""

    def encode_query(
        self,
        inputs: list[str],
        /,
        *,
        prompt_name: str | None,
        prompt: str | None,
        batch_size: int,
        show_progress_bar: bool,
        max_active_dims: int | None,
    ) -> Embeddings:
        """Return the term weights of queries, (N, V)."""

    def encode_document(
        self,
        inputs: list[str],
        /,
        *,
        prompt_name: str | None,
        prompt: str | None,
        batch_size: int,
        show_progress_bar: bool,
        max_active_dims: int | None,
    ) -> Embeddings:
        """Return the term weights of documents, (N, V)."""
