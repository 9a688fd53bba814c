"""The names of the ways to compare embeddings, as a saved model holds them; it computes nothing and needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from sparse_encoder.similarity import Embeddings


class SimilarityFunction(Enum):
    """Name the ways to compare embeddings; the values are what a saved model holds."""

    COSINE = "cosine"
    DOT_PRODUCT = "dot"
    DOT = "dot"  # noqa: PIE796  (an alias of DOT_PRODUCT)
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"

    @classmethod
    def _missing_(cls, value: object) -> SimilarityFunction:
        raise ValueError(f"unknown similarity {value!r}; choose from {cls.possible_values()}")

    @staticmethod
    def to_similarity_fn(similarity_function: str | SimilarityFunction) -> Callable[[Embeddings, Embeddings], Tensor]:
        """Return the function that compares all rows with all rows.

        Raises:
            ValueError: If the name is not one of :meth:`possible_values`.
        """
        from sparse_encoder.similarity import FUNCTIONS

        return FUNCTIONS[SimilarityFunction(similarity_function)][0]

    @staticmethod
    def to_similarity_pairwise_fn(
        similarity_function: str | SimilarityFunction,
    ) -> Callable[[Embeddings, Embeddings], Tensor]:
        """Return the function that compares row with row.

        Raises:
            ValueError: If the name is not one of :meth:`possible_values`.
        """
        from sparse_encoder.similarity import FUNCTIONS

        return FUNCTIONS[SimilarityFunction(similarity_function)][1]

    @staticmethod
    def possible_values() -> list[str]:
        """List the names."""
        return [function.value for function in SimilarityFunction]
