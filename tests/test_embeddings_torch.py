"""What scripts do with the torch COO tensor that the peer returns goes on working on SparseEmbeddings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from embedding_helpers import N, V, matrix
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparse_encoder.embeddings import SparseEmbeddings

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")  # torch's own, once in a process


@pytest.fixture
def dense() -> Tensor:
    return matrix()


@pytest.fixture
def embeddings(dense: Tensor) -> SparseEmbeddings:
    return SparseEmbeddings.from_dense(dense)


def test_form(dense: Tensor, embeddings: SparseEmbeddings) -> None:
    coo = dense.to_sparse()
    assert embeddings.is_sparse is coo.is_sparse is True
    assert not embeddings.requires_grad
    for name in ("shape", "dtype", "device", "layout", "ndim"):
        assert getattr(embeddings, name) == getattr(coo, name)
    for name in ("size", "dim", "numel", "_nnz", "is_coalesced", "sparse_dim", "dense_dim", "is_floating_point"):
        assert getattr(embeddings, name)() == getattr(coo, name)()
    assert embeddings.size(0) == embeddings.size(-2) == len(embeddings) == N
    assert embeddings.size(1) == V
    assert repr(embeddings) == f"SparseEmbeddings(shape=(5, 17), nnz={coo._nnz()}, dtype=torch.float32, device='cpu')"


def test_entries(dense: Tensor, embeddings: SparseEmbeddings) -> None:
    coo = dense.to_sparse()
    for ours, theirs in ((embeddings, coo), (embeddings.coalesce(), coo), (embeddings[3], coo[3].coalesce())):
        assert torch.equal(ours.indices(), theirs.indices())
        assert torch.equal(ours.values(), theirs.values())
        assert torch.equal(ours._indices(), theirs._indices())
        assert torch.equal(ours._values(), theirs._values())
    assert embeddings.indices().dtype == torch.int64


def test_other_forms(dense: Tensor, embeddings: SparseEmbeddings) -> None:
    assert torch.equal(embeddings.to_dense(), dense)
    assert embeddings.to_sparse().is_coalesced()
    assert embeddings.to_torch().layout == torch.sparse_coo
    assert torch.equal(embeddings.to_sparse().to_dense(), dense)
    assert torch.equal(embeddings[1].to_sparse().to_dense(), dense[1])
    assert torch.equal(embeddings.to_torch(torch.sparse_csr).to_dense(), dense)
    assert embeddings.tolist() == dense.tolist()
    with pytest.raises(ValueError, match="layout must be"):
        embeddings.to_torch(torch.strided)


class TestMoving:
    def test_types(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        for name, dtype in (("half", torch.float16), ("bfloat16", torch.bfloat16), ("double", torch.float64)):
            for moved in (getattr(embeddings, name)(), embeddings.to(dtype), embeddings.to(dtype=dtype)):
                assert moved.dtype == dtype
                assert torch.equal(moved.to_dense(), dense.to(dtype))
            assert torch.equal(moved.float().to_dense(), dense.to(dtype).float())
        assert embeddings.to("cpu", torch.float64).dtype == torch.float64
        assert embeddings.to(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
        assert embeddings.to(embeddings.half()).dtype == torch.float16

    def test_nothing_is_copied_without_need(self, embeddings: SparseEmbeddings) -> None:
        for same in (embeddings.to("cpu"), embeddings.cpu(), embeddings.float(), embeddings.detach(), embeddings.to()):
            assert same is embeddings

    def test_devices(self, embeddings: SparseEmbeddings) -> None:
        moved = embeddings.to("meta")
        assert {array.device.type for array in (moved.values(), moved.col_indices(), moved.crow_indices())} == {"meta"}
        assert embeddings.to(device="meta", dtype=torch.float16).dtype == torch.float16

    def test_whole_numbers_are_refused(self, embeddings: SparseEmbeddings) -> None:
        with pytest.raises(ValueError, match="must be floating point, got torch.int64"):
            embeddings.to(torch.int64)


class TestComparison:
    def test_equal(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        for same in (embeddings, embeddings.clone(), dense, dense.to_sparse(), dense.to_sparse_csr()):
            assert torch.equal(embeddings, same)
            assert torch.equal(same, embeddings)
            assert embeddings.equal(same)
        changed = dense.clone()
        changed[4, 3] += 1
        others = (
            embeddings[:4],
            embeddings[[1, 0, 2, 3, 4]],
            embeddings.double(),
            changed,
            changed.to_sparse(),
            dense[0],
        )
        for other in others:
            assert not torch.equal(embeddings, other)
        assert not torch.equal(dense, dense.clone().index_fill_(1, torch.tensor([0]), 9.0))

    def test_stored_zeros_are_zeros(self, embeddings: SparseEmbeddings) -> None:
        assert (embeddings * 0).nnz == embeddings.nnz
        assert torch.equal(embeddings * 0, torch.zeros(N, V))
        assert int((embeddings * 0).count_nonzero()) == 0

    @given(st.integers(0, 30), st.integers(0, 30), st.sampled_from([0.0, 1e-7, 1e-3, 0.5]))
    def test_allclose_as_of_the_dense_matrices(self, seed: int, other_seed: int, change: float) -> None:
        one, two = matrix(seed), matrix(other_seed)
        two = one + change * (two != 0)
        ours = SparseEmbeddings.from_dense(one)
        for tolerance in ({}, {"atol": 1e-2}, {"rtol": 1e-1}, {"rtol": 0.0, "atol": 1.0}):
            expected = torch.allclose(one, two, **tolerance)
            assert torch.allclose(ours, SparseEmbeddings.from_dense(two), **tolerance) is expected
            assert torch.allclose(ours, two, **tolerance) is expected
            assert torch.allclose(one, SparseEmbeddings.from_dense(two), **tolerance) is expected
            assert ours.allclose(two.to_sparse(), **tolerance) is expected

    def test_shapes_must_be_equal(self, embeddings: SparseEmbeddings) -> None:
        with pytest.raises(ValueError, match="shapes must be equal"):
            torch.allclose(embeddings, embeddings[:3])


class TestRows:
    def test_index_select(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        rows = torch.tensor([3, 0, 3])
        for picked in (torch.index_select(embeddings, 0, rows), torch.index_select(embeddings, dim=-2, index=rows)):
            assert isinstance(picked, SparseEmbeddings)
            assert torch.equal(picked, dense[rows])
        assert torch.equal(torch.index_select(embeddings, 1, rows).to_dense(), dense[:, rows])
        with pytest.raises(IndexError, match=r"rows must lie in \[0, 5\)"):
            torch.index_select(embeddings, 0, torch.tensor([5]))

    def test_stack_and_cat(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        for joined in (
            torch.stack(list(embeddings)),
            torch.cat([embeddings[:2], embeddings[2:]]),
            torch.vstack((embeddings,)),
        ):
            assert isinstance(joined, SparseEmbeddings)
            assert torch.equal(joined, dense)
        assert torch.stack([embeddings, embeddings]).shape == (2, N, V)
        assert torch.cat([embeddings, embeddings], dim=1).shape == (N, 2 * V)
        assert torch.equal(torch.cat([embeddings, dense.to_sparse()]).to_dense(), torch.cat([dense, dense]))


class TestProducts:
    @pytest.mark.parametrize("function", [torch.mm, torch.matmul, torch.sparse.mm, lambda a, b: a @ b])
    def test_with_everything(
        self, function: Callable[..., Tensor], dense: Tensor, embeddings: SparseEmbeddings
    ) -> None:
        other = matrix(1, rows=3)
        sparse_other = SparseEmbeddings.from_dense(other)
        expected = dense @ other.T
        torch.testing.assert_close(function(embeddings, other.T), expected)
        for right in (sparse_other.T, other.T.to_sparse(), sparse_other.t(), sparse_other.transpose(0, 1)):
            product = function(embeddings, right)
            assert product.is_sparse
            torch.testing.assert_close(product.to_dense(), expected)
        torch.testing.assert_close(function(dense.T.to_sparse(), embeddings).to_dense(), dense.T @ dense)

    def test_from_the_left(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        torch.testing.assert_close(dense.T @ embeddings, dense.T @ dense)
        torch.testing.assert_close(torch.matmul(dense.T, embeddings), dense.T @ dense)

    def test_with_a_vector(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        torch.testing.assert_close(embeddings @ dense[0], dense @ dense[0])

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_of_other_types(self, dtype: torch.dtype, dense: Tensor) -> None:
        rows = SparseEmbeddings.from_dense(dense.to(dtype))
        product = rows @ rows.T
        assert product.dtype == dtype
        torch.testing.assert_close(product.to_dense(), dense.to(dtype) @ dense.to(dtype).T)

    def test_shapes_must_fit(self, embeddings: SparseEmbeddings) -> None:
        with pytest.raises(RuntimeError, match=r"cannot multiply matrices of shapes \(5, 17\) and \(5, 17\)"):
            torch.mm(embeddings, embeddings)

    def test_gradient_of_the_dense_side(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        weight = torch.ones(V, 2, requires_grad=True)
        (embeddings @ weight).sum().backward()
        torch.testing.assert_close(weight.grad, dense.sum(dim=0)[:, None].expand(V, 2))


class TestArithmetic:
    def test_numbers(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        for ours, theirs in (
            (embeddings * 2, dense * 2),
            (0.5 * embeddings, 0.5 * dense),
            (embeddings / 4, dense / 4),
            (np.float32(2) * embeddings, dense * 2),
            (embeddings * np.float64(2), dense * 2),
            (-embeddings, -dense),
            (abs(embeddings), dense.abs()),
            (embeddings.abs(), dense.abs()),
            (torch.abs(embeddings), dense.abs()),
        ):
            assert isinstance(ours, SparseEmbeddings)
            assert torch.equal(ours, theirs)

    def test_tensors(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        other = matrix(1)
        ours = SparseEmbeddings.from_dense(other)
        for found, expected in (
            (embeddings * ours, dense * other),
            (embeddings * other, dense * other),
            (embeddings + ours, dense + other),
            (embeddings + other, dense + other),
            (other + embeddings, dense + other),
            (embeddings - ours, dense - other),
            (other - embeddings, other - dense),
            (embeddings * torch.tensor(2.0), dense * 2),
            (embeddings / torch.tensor(2.0), dense / 2),
        ):
            assert torch.equal(found.to_dense(), expected)

    def test_sums(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        torch.testing.assert_close(embeddings.sum(), dense.sum())
        torch.testing.assert_close(torch.sum(embeddings), dense.sum())
        for dim in (0, 1, -1):
            torch.testing.assert_close(embeddings.sum(dim).to_dense(), dense.sum(dim))
            torch.testing.assert_close(torch.sparse.sum(embeddings, dim).to_dense(), dense.sum(dim))
        torch.testing.assert_close(embeddings.norm(), dense.norm())

    def test_counts(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        assert torch.equal(embeddings.count_nonzero(), dense.count_nonzero())
        assert torch.equal(torch.count_nonzero(embeddings), dense.count_nonzero())
        assert torch.equal(embeddings[3].count_nonzero(), dense[3].count_nonzero())
        for dim in (0, 1, -1, -2):
            assert torch.equal(embeddings.count_nonzero(dim), dense.count_nonzero(dim))
            assert torch.equal(torch.count_nonzero(embeddings, dim=dim), dense.count_nonzero(dim))


class TestTheRestOfATensor:
    def test_reading_members_are_there(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        torch.testing.assert_close(embeddings.log1p().to_dense(), dense.log1p(), equal_nan=True)
        torch.testing.assert_close(torch.relu(embeddings).to_dense(), dense.relu())
        assert torch.equal(embeddings.unsqueeze(0).to_dense(), dense[None])
        assert embeddings.is_cuda is False

    @pytest.mark.parametrize("name", ["mul_", "zero_", "_coalesced_", "nothing", "_private", "__array_interface__"])
    def test_writing_and_unknown_members_are_not(self, name: str, embeddings: SparseEmbeddings) -> None:
        assert not hasattr(embeddings, name)
        with pytest.raises(AttributeError, match=name):
            getattr(embeddings, name)

    def test_no_operation_makes_a_dense_matrix(self) -> None:
        rows = SparseEmbeddings.from_rows([{number * 149: 1.0, 5: 2.0} for number in range(20_000)], 3_000_000)
        assert rows.numel() * 4 == 240 * 10**9, "bytes that nobody has"
        assert torch.equal(rows[[5, 7]], rows[5:8:2])
        assert torch.allclose(rows, rows * 1.0)
        assert rows.top_k(1).nnz == 20_000
        assert (rows[:3] @ rows.to_torch().T).shape == (3, 20_000)
        assert torch.stack(list(rows[:9])).nnz == 18
        assert SparseEmbeddings.from_scipy(rows.to_scipy()).nnz == 40_000
        assert SparseEmbeddings.from_torch(rows.to_torch()).nnz == 40_000
        assert rows[0, 5] == 2.0
