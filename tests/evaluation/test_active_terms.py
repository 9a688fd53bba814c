from __future__ import annotations

from math import isnan, nan

import numpy as np
import pytest
import torch

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation import active_terms
from sparse_encoder.evaluation.active_terms import ActiveTerms
from sparse_encoder.evaluation.embedding import EncodeOptions, extremes, sparsity
from sparse_encoder.search import SparseIndex

FIRST = SparseEmbeddings.from_dense(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]]))
SECOND = SparseEmbeddings.from_dense(torch.tensor([[1.0, -1.0, 2.0]]))


def counted(*matrices: SparseEmbeddings) -> ActiveTerms:
    terms = ActiveTerms()
    for matrix in matrices:
        terms.add(matrix)
    return terms


@pytest.mark.parametrize("block", [1, 2, 1 << 18])
def test_rows_by_term(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(active_terms, "_BLOCK", block)
    terms = counted(FIRST, SECOND)
    assert terms.num_rows == 3
    assert terms.rows_by_term.tolist() == [2, 1, 3]
    assert (terms.active_dims, terms.sparsity_ratio) == (2.0, pytest.approx(1 / 3))
    assert counted(FIRST).flops(counted(SECOND)) == pytest.approx((1 + 0 + 2) / 2)


def test_stored_zeros_are_not_active() -> None:
    zeros = SparseEmbeddings(
        torch.tensor([0, 2]), torch.tensor([0, 2], dtype=torch.int32), torch.tensor([0.0, 5.0]), (1, 3)
    )
    assert counted(zeros).rows_by_term.tolist() == [0, 0, 1]


def test_counts_of_different_rows_are_joined() -> None:
    joined = ActiveTerms.of_all([counted(FIRST), counted(SECOND)])
    assert (joined.num_rows, joined.rows_by_term.tolist()) == (3, [2, 1, 3])
    wide = counted(SparseEmbeddings.from_dense(torch.ones(1, 4)))
    with pytest.raises(ValueError, match=r"same terms, got \[3, 4\]"):
        ActiveTerms.of_all([joined, wide])


def test_means_over_matrices() -> None:
    assert sparsity(FIRST, SECOND, prefix="x_") == {"x_active_dims": 2.0, "x_sparsity_ratio": pytest.approx(1 / 3)}


def test_options_below_one() -> None:
    with pytest.raises(ValueError, match="max_active_dims must be at least 1, got 0"):
        EncodeOptions(batch_size=1, show_progress_bar=False, max_active_dims=0)


def test_an_index_has_counted_already() -> None:
    rows = SparseEmbeddings.from_dense(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]]))
    counted = ActiveTerms()
    counted.add_counts(len(rows), SparseIndex.build(rows).document_frequencies)
    expected = ActiveTerms()
    expected.add(rows)
    assert counted.rows_by_term.tolist() == expected.rows_by_term.tolist() == [1, 0, 2]
    assert counted.num_rows == expected.num_rows == 3
    with pytest.raises(ValueError, match="embeddings must have one width, got 3 and 2"):
        counted.add_counts(1, np.array([1, 0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_extremes(dtype: torch.dtype) -> None:
    assert extremes(torch.tensor([1.0, -2.0, 3.5], dtype=dtype)) == (-2.0, 3.5)
    assert extremes(torch.zeros(0, dtype=dtype)) == (0.0, 0.0)
    assert all(map(isnan, extremes(torch.tensor([1.0, nan, 3.5], dtype=dtype))))
