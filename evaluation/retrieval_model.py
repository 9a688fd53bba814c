"""What evaluators ask of a model: :class:`SparseEncoder` has all of it, :class:`BM25` what searches need."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from sparse_encoder.similarity import Embeddings


class EncodingModel(Protocol):
    """Encodes texts that are neither queries nor documents."""

    @property
    def similarity_fn_name(self) -> str:
        """Name of the similarity."""

    def encode(
        self, inputs: list[str], /, *, batch_size: int, show_progress_bar: bool, max_active_dims: int | None
    ) -> Embeddings:
        """Return the term weights of texts, (N, V)."""


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
        prompt_name: str | None = None,
        prompt: str | None = None,
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
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int,
        show_progress_bar: bool,
        max_active_dims: int | None,
    ) -> Embeddings:
        """Return the term weights of documents, (N, V)."""
