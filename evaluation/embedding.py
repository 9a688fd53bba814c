"""How evaluators ask a model for embeddings, and what they tell of them; knows no metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation.active_terms import ActiveTerms
from sparse_encoder.similarity import Embeddings, as_embeddings


def as_sparse(embeddings: Embeddings) -> SparseEmbeddings:
    """Bring embeddings of any kind to CSR rows, (N, V)."""
    rows = as_embeddings(embeddings)
    return SparseEmbeddings.from_dense(rows) if isinstance(rows, Tensor) else rows


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeOptions:
    """What every call of a model's encode methods is given."""

    batch_size: int
    show_progress_bar: bool
    max_active_dims: int | None
    """Most active terms of a text; ``None`` leaves it to the model."""

    def __post_init__(self) -> None:
        """Refuse sizes below 1."""
        for name, value in (("batch_size", self.batch_size), ("max_active_dims", self.max_active_dims)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    def embed(
        self, encode: Callable[..., Embeddings], texts: list[str], prompts: Mapping[str, str | None] | None = None
    ) -> SparseEmbeddings:
        """Encode texts.

        Args:
            encode: A method of a model.
            texts: At least one.
            prompts: Its keywords ``prompt`` and ``prompt_name``, if any.

        Returns:
            (N, V), on the CPU.

        Raises:
            ValueError: If the model returns another number of rows.
        """
        found = encode(
            texts,
            **(prompts or {}),
            batch_size=self.batch_size,
            show_progress_bar=self.show_progress_bar,
            max_active_dims=self.max_active_dims,
        )
        rows = as_sparse(found).cpu()
        if len(rows) != len(texts):
            raise ValueError(f"a model must return a row for each text, got {len(rows)} for {len(texts)}")
        return rows

    def settings(self) -> dict[str, int]:
        """Return what of it belongs into a model card."""
        return {} if self.max_active_dims is None else {"max_active_dims": self.max_active_dims}


def check_finite(embeddings: SparseEmbeddings, name_of: Callable[[int], str]) -> None:
    """Refuse embeddings that cannot be compared.

    Args:
        embeddings: (N, V).
        name_of: Says what a row is.

    Raises:
        ValueError: If a weight is NaN or infinite, naming the row and the term.
    """
    values = embeddings.values()
    if all(map(isfinite, extremes(values))):
        return
    place = int(torch.nonzero(~values.isfinite())[0])
    row = int(torch.searchsorted(embeddings.crow_indices(), place, right=True)) - 1
    term = int(embeddings.col_indices()[place])
    raise ValueError(f"embeddings must be finite, {name_of(row)} has {values[place].item()} for term {term}")


def extremes(values: Tensor) -> tuple[float, float]:
    """Return the smallest and the greatest of values, (N), NaN if there is one; zeros if there are none."""
    if not len(values):
        return 0.0, 0.0
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        array = values.detach().numpy()  # where this takes a tenth of torch's time
        return float(array.min()), float(array.max())
    low, high = torch.stack(values.aminmax()).tolist()
    return low, high


def sparsity(*matrices: SparseEmbeddings, prefix: str = "") -> dict[str, float]:
    """Return the mean number of active terms of all rows, and the mean share of terms that are not, by name.

    Args:
        matrices: (N, V) each, of one width.
        prefix: Of the names ``active_dims`` and ``sparsity_ratio``.
    """
    terms = ActiveTerms()
    for matrix in matrices:
        terms.add(matrix)
    return {f"{prefix}active_dims": terms.active_dims, f"{prefix}sparsity_ratio": terms.sparsity_ratio}
