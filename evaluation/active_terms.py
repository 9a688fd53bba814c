"""How many terms embeddings use; knows nothing of what the terms mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from sparse_encoder.embeddings import SparseEmbeddings


@dataclass
class ActiveTerms:
    """Count, matrix by matrix, which rows use which terms."""

    num_rows: int = 0
    """Rows counted."""
    rows_by_term: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """How many of them use each term, (V)."""

    def add(self, embeddings: SparseEmbeddings) -> None:
        """Count the rows of a matrix, (N, V).

        Raises:
            ValueError: If it has another number of terms than those before.
        """
        terms, values = embeddings.col_indices(), embeddings.values()
        used = terms if int(torch.count_nonzero(values)) == len(values) else terms[values != 0]
        self.add_counts(embeddings.shape[0], _count(used.cpu().numpy(), embeddings.shape[1]))

    def add_counts(self, num_rows: int, counts: NDArray[np.int64]) -> None:
        """Add rows that are counted already.

        Args:
            num_rows: How many.
            counts: How many of them use each term, (V).

        Raises:
            ValueError: If they are of another number of terms than those before.
        """
        if self.num_rows and len(counts) != len(self.rows_by_term):
            raise ValueError(f"embeddings must have one width, got {len(self.rows_by_term)} and {len(counts)}")
        self.rows_by_term = self.rows_by_term + counts if self.num_rows else counts
        self.num_rows += num_rows

    @classmethod
    def of_all(cls, parts: Sequence[ActiveTerms]) -> ActiveTerms:
        """Join counts of different rows.

        Raises:
            ValueError: If they are of different numbers of terms.
        """
        widths = sorted({len(part.rows_by_term) for part in parts})
        if len(widths) != 1:
            raise ValueError(f"counts must be of the same terms, got {widths}")
        counts: NDArray[np.int64] = np.sum([part.rows_by_term for part in parts], axis=0)
        return cls(sum(part.num_rows for part in parts), counts)

    @property
    def active_dims(self) -> float:
        """Mean number of terms that a row uses."""
        return float(self.rows_by_term.sum()) / self.num_rows if self.num_rows else 0.0

    @property
    def sparsity_ratio(self) -> float:
        """Mean share of terms that a row does not use."""
        return 1 - self.active_dims / len(self.rows_by_term) if len(self.rows_by_term) else 1.0

    def flops(self, other: ActiveTerms) -> float:
        """Return how many terms a row of these shares with a row of the others on average.

        It is the number of multiplications that a search costs per query and document.
        """
        return float(self.rows_by_term @ other.rows_by_term) / (self.num_rows * other.num_rows)


def _count(terms: NDArray[np.int32], num_terms: int) -> NDArray[np.int64]:
    """Count each term, (V), in blocks: numpy copies what it counts to integers of 64 bits."""
    counts = np.zeros(num_terms, dtype=np.int64)
    for start in range(0, len(terms), _BLOCK):
        counts += np.bincount(terms[start : start + _BLOCK], minlength=num_terms)
    return counts


_BLOCK = 1 << 18
