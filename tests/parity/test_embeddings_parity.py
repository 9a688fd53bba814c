"""Functions that sentence-transformers made for its COO tensors, called on SparseEmbeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparse_encoder.embeddings import SparseEmbeddings

util = pytest.importorskip("sentence_transformers.util")
N, V = 5, 17


def matrix() -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    return torch.randn(N, V, generator=draw) * (torch.rand(N, V, generator=draw) < 0.5)


def test_to_scipy_coo() -> None:
    ours = SparseEmbeddings.from_dense(matrix())
    assert np.array_equal(util.to_scipy_coo(ours).toarray(), ours.to_scipy().toarray())


@pytest.mark.parametrize("k", [1, 3, 17, 40])
def test_select_max_active_dims(k: int) -> None:
    dense = matrix()
    expected = util.select_max_active_dims(dense, max_active_dims=k)
    assert torch.equal(SparseEmbeddings.from_dense(dense, max_active_dims=k), expected)
    assert torch.equal(SparseEmbeddings.from_dense(dense).top_k(k), expected)


def test_compute_count_vector() -> None:
    ours = SparseEmbeddings.from_dense(matrix())
    assert torch.equal(ours.count_nonzero(0), util.compute_count_vector(ours.to_torch()).long())


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_dot_score_of_the_torch_tensor() -> None:
    ours = SparseEmbeddings.from_dense(matrix())
    theirs = util.dot_score(ours.to_torch(), ours.to_torch())
    theirs = theirs.to_dense() if theirs.is_sparse else theirs
    torch.testing.assert_close((ours @ ours.T).to_dense(), theirs)
