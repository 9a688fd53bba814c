from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch

from sparse_encoder import similarity
from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.similarity import SimilarityFunction

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")  # torch says so, once

A = torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
B = torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0, 1.0, 1.0, -2.0]])

FORMS = {
    "dense": lambda matrix: matrix,
    "coo": lambda matrix: matrix.to_sparse(),
    "csr": lambda matrix: matrix.to_sparse_csr(),
    "rows": SparseEmbeddings.from_dense,
    "numpy": lambda matrix: matrix.numpy(),
    "scipy": lambda matrix: scipy.sparse.csr_array(matrix.numpy()),
    "list of tensors": list,
    "list of coo": lambda matrix: [row.to_sparse() for row in matrix],
    "list of rows": lambda matrix: list(SparseEmbeddings.from_dense(matrix)),
    "list of lists": lambda matrix: matrix.tolist(),
}
NAMES = ("cosine", "dot", "euclidean", "manhattan")


def by_definition(name: str, a: torch.Tensor, b: torch.Tensor) -> float:
    """Compare two rows by the formula, in float64."""
    a, b = a.double(), b.double()
    if name == "dot":
        return float((a * b).sum())
    if name == "cosine":
        return float((a * b).sum() / max(float(a.norm() * b.norm()), 1e-12))
    return -float((a - b).norm() if name == "euclidean" else (a - b).abs().sum())


@pytest.mark.parametrize("right", FORMS)
@pytest.mark.parametrize("left", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_every_pair_of_forms_gives_the_formula(name: str, left: str, right: str) -> None:
    result = SimilarityFunction.to_similarity_fn(name)(FORMS[left](A), FORMS[right](B))
    expected = torch.tensor([[by_definition(name, a, b) for b in B] for a in A])
    assert result.layout is torch.strided
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("right", [form for form in FORMS if form != "list of lists"])
@pytest.mark.parametrize("left", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_pairwise_is_the_diagonal(name: str, left: str, right: str) -> None:
    result = SimilarityFunction.to_similarity_pairwise_fn(name)(FORMS[left](A[:2]), FORMS[right](B))
    expected = torch.tensor([by_definition(name, a, b) for a, b in zip(A[:2], B, strict=True)])
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_small_chunks_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    full, pairwise = SimilarityFunction.to_similarity_fn(name), SimilarityFunction.to_similarity_pairwise_fn(name)
    a, b = SparseEmbeddings.from_dense(A), SparseEmbeddings.from_dense(B)
    whole = full(a, b), pairwise(a[:2], b)
    monkeypatch.setattr(similarity, "CHUNK_ELEMENTS", 1)
    assert torch.equal(full(a, b), whole[0])
    assert torch.equal(pairwise(a[:2], b), whole[1])


@pytest.mark.parametrize("name", NAMES)
def test_no_rows_give_no_scores(name: str) -> None:
    none = SparseEmbeddings.empty(4)
    assert SimilarityFunction.to_similarity_fn(name)(none, B).shape == (0, 2)
    assert SimilarityFunction.to_similarity_fn(name)(A, none).shape == (3, 0)
    assert SimilarityFunction.to_similarity_fn(name)(none, none).shape == (0, 0)
    assert SimilarityFunction.to_similarity_pairwise_fn(name)(none, none).shape == (0,)


def test_one_embedding_is_a_matrix_of_one_row() -> None:
    row = SparseEmbeddings.from_dense(A[0])
    assert similarity.dot_score(row, B).tolist() == [[5.0, 2.0]]
    assert similarity.dot_score([1.0, 0.0, 2.0, 0.0], B).tolist() == [[5.0, 2.0]]
    assert similarity.pairwise_dot_score(row, B[1]).item() == 2.0


def test_equal_sparse_rows_have_no_distance() -> None:
    rows = SparseEmbeddings.from_dense(torch.rand(3, 40, generator=torch.Generator().manual_seed(1)) * 30)
    assert similarity.euclidean_sim(rows, rows).diagonal().abs().max() < 1e-5


def test_sparse_16_bit_values_are_compared_in_float32() -> None:
    a = SparseEmbeddings.from_dense(A.bfloat16())
    assert similarity.dot_score(a, a).dtype == torch.float32
    assert similarity.dot_score(A.bfloat16(), B.bfloat16()).dtype == torch.bfloat16
    assert similarity.dot_score(A.bfloat16(), B).dtype == torch.float32


def test_gradients_pass_through_dense_and_coo_tensors() -> None:
    dense, coo = A.clone().requires_grad_(), B.to_sparse().requires_grad_()
    similarity.dot_score(dense, coo).sum().backward()
    assert dense.grad is not None
    torch.testing.assert_close(dense.grad, B.sum(dim=0).expand(3, 4))
    assert coo.grad is not None


def test_names() -> None:
    assert SimilarityFunction.possible_values() == ["cosine", "dot", "euclidean", "manhattan"]
    assert SimilarityFunction("dot") is SimilarityFunction.DOT is SimilarityFunction.DOT_PRODUCT
    with pytest.raises(ValueError, match="unknown similarity 'angle'; choose from .*'cosine'"):
        SimilarityFunction.to_similarity_fn("angle")


@pytest.mark.parametrize("wrong", ["text", 3, {"a": 1}, None])
def test_what_is_no_embedding_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="embeddings must be"):
        similarity.dot_score(wrong, B)


def test_different_widths_are_refused() -> None:
    narrow = SparseEmbeddings.from_dense(A[:, :3])
    with pytest.raises(ValueError, match="same width, got 3 and 4"):
        similarity.dot_score(narrow, SparseEmbeddings.from_dense(B))
    with pytest.raises(ValueError, match="equal shapes"):
        similarity.pairwise_dot_score(narrow, SparseEmbeddings.from_dense(B))


def test_integers_become_floats() -> None:
    assert similarity.dot_score(np.array([[1, 2]]), torch.tensor([[3, 4]])).tolist() == [[11.0]]


@pytest.mark.parametrize("width", [6, 7])
def test_angle_of_sparse_rows_is_that_of_dense_ones(width: int) -> None:
    generator = torch.Generator().manual_seed(5)
    a, b = (torch.rand(2, 4, width, generator=generator) - 0.5).relu().unbind()
    dense = similarity.pairwise_angle_sim(a, b)
    assert dense.shape == (4,)
    torch.testing.assert_close(similarity.pairwise_angle_sim(SparseEmbeddings.from_dense(a), b), dense)
    torch.testing.assert_close(similarity.pairwise_angle_sim(a[1], b[1]), dense[1])
    by_hand = similarity.pairwise_angle_sim(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]))
    assert by_hand.item() == pytest.approx(1.4)
