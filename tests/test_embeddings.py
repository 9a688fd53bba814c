"""Rows of sparse embeddings: how they are made, changed, picked and kept."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from embedding_helpers import N, V, matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import load_file, save_file
from scipy import sparse
from torch import Tensor

from sparse_encoder.checkpoint import LoadError
from sparse_encoder.embeddings import SparseEmbeddings

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CS. tensor support")  # torch's own, once in a process

dense_matrices = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 6), st.integers(1, 9)),
    elements=st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, -2.25, 3e-5]),
).map(torch.from_numpy)
indices = st.integers(-8, 8)
bounds = st.none() | indices
row_indices = st.one_of(
    indices,
    st.builds(slice, bounds, bounds, bounds.filter(lambda step: step != 0)),
    st.lists(indices, max_size=7),
    st.lists(st.booleans(), max_size=6),
)


@pytest.fixture
def dense() -> Tensor:
    return matrix()


@pytest.fixture
def embeddings(dense: Tensor) -> SparseEmbeddings:
    return SparseEmbeddings.from_dense(dense)


class TestConstruction:
    def test_arrays_by_hand(self) -> None:
        rows = SparseEmbeddings.from_dense(torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 3.0]]))
        assert rows.crow_indices().tolist() == [0, 1, 1, 3]
        assert rows.col_indices().tolist() == [1, 0, 2]
        assert rows.values().tolist() == [2.0, -1.0, 3.0]
        assert rows.indices().tolist() == [[0, 2, 2], [1, 0, 2]]
        assert (rows.crow_indices().dtype, rows.col_indices().dtype) == (torch.int64, torch.int32)
        assert rows.shape == torch.Size([3, 3])

    def test_a_single_row(self) -> None:
        row = SparseEmbeddings.from_dense(torch.tensor([0.0, 2.0, -1.0]))
        assert row.shape == torch.Size([3])
        assert (row.ndim, row.dim(), len(row), row.nnz) == (1, 1, 3, 2)
        assert row.crow_indices().tolist() == [0, 2]
        assert row.indices().tolist() == [[1, 2]]
        assert row.to_dict() == {1: 2.0, 2: -1.0}

    def test_of_whole_numbers(self) -> None:
        assert SparseEmbeddings.from_dense(torch.tensor([[0, 2]])).values().tolist() == [2.0]
        assert SparseEmbeddings.from_dense(torch.tensor([[False, True]])).dtype == torch.float32

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_keeps_the_floating_type(self, dtype: torch.dtype, dense: Tensor) -> None:
        rows = SparseEmbeddings.from_dense(dense.to(dtype))
        assert rows.dtype == dtype
        assert torch.equal(rows.to_dense(), dense.to(dtype))
        assert torch.equal(rows.top_k(2).to_dense(), SparseEmbeddings.from_dense(dense.to(dtype)).top_k(2).to_dense())

    def test_carries_no_gradient(self, dense: Tensor) -> None:
        assert not SparseEmbeddings.from_dense(dense.requires_grad_()).values().requires_grad

    def test_empty(self) -> None:
        rows = SparseEmbeddings.empty(V)
        assert rows.shape == torch.Size([0, V])
        assert list(rows) == rows.to_list_of_dicts() == []
        assert rows.to_dense().shape == (0, V)
        assert rows.to_scipy().shape == (0, V)
        assert rows[[]].shape == rows[:].shape == (0, V)

    def test_of_a_dense_matrix_without_rows(self) -> None:
        assert SparseEmbeddings.from_dense(torch.zeros(0, V)).shape == (0, V)
        assert SparseEmbeddings.from_dense(torch.zeros(0, V), max_active_dims=3).shape == (0, V)
        assert SparseEmbeddings.from_dense(torch.zeros(3, 0)).crow_indices().tolist() == [0, 0, 0, 0]

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_refuses_what_is_not_finite(self, value: float, dense: Tensor) -> None:
        dense[3, 11] = value
        csr = sparse.csr_array(dense.numpy())
        makers = (
            lambda: SparseEmbeddings.from_dense(dense),
            lambda: SparseEmbeddings.from_dense(dense, max_active_dims=4),
            lambda: SparseEmbeddings.from_torch(dense.to_sparse()),
            lambda: SparseEmbeddings.from_scipy(csr),
            lambda: SparseEmbeddings.from_rows([{}, {}, {}, {11: value}], V),
        )
        for make in makers:
            with pytest.raises(ValueError, match=f"must be finite, row 3 has {value} in column 11"):
                make()

    @pytest.mark.parametrize("shape", [(), (2, 3, 4)])
    def test_refuses_other_dimensions(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="expected a dense"):
            SparseEmbeddings.from_dense(torch.ones(shape))

    def test_wrong_layouts(self, dense: Tensor) -> None:
        with pytest.raises(ValueError, match="use from_dense"):
            SparseEmbeddings.from_torch(dense)
        with pytest.raises(ValueError, match="expected a dense"):
            SparseEmbeddings.from_dense(dense.to_sparse())
        with pytest.raises(ValueError, match="got layout torch.sparse_csc"):
            SparseEmbeddings.from_torch(dense.to_sparse_csc())


WRONG_ARRAYS = {
    "falling starts": ([0, 3, 2, 4], [1, 0, 2, 3], [1.0] * 4, (3, 5), "must not fall, row 1 goes from 3 to 2"),
    "starts that begin late": ([1, 1, 2, 4], [1, 0, 2, 3], [1.0] * 4, (3, 5), "from 0 to 4, got 1 to 4"),
    "starts that end early": ([0, 1, 2, 3], [1, 0, 2, 3], [1.0] * 4, (3, 5), "from 0 to 4, got 0 to 3"),
    "starts past the end": ([0, 1, 2, 9], [1, 0, 2, 3], [1.0] * 4, (3, 5), "from 0 to 4, got 0 to 9"),
    "too few starts": ([0, 1, 4], [1, 0, 2, 3], [1.0] * 4, (3, 5), "3 rows need 4 row starts"),
    "no starts": ([], [], [], (0, 5), "0 rows need 1 row starts"),
    "more values than columns": ([0, 1, 2, 4], [1, 0, 2, 3], [1.0] * 5, (3, 5), "as many columns as values"),
    "negative column": ([0, 1, 2, 4], [1, -1, 2, 3], [1.0] * 4, (3, 5), "row 1 has -1"),
    "column past the end": ([0, 1, 2, 4], [1, 0, 2, 5], [1.0] * 4, (3, 5), "row 2 has 5"),
    "doubled column": ([0, 1, 2, 4], [1, 0, 3, 3], [1.0] * 4, (3, 5), "row 2 has \\[3, 3\\]"),
    "unsorted columns": ([0, 1, 2, 4], [1, 0, 3, 2], [1.0] * 4, (3, 5), "row 2 has \\[3, 2\\]"),
    "nan": ([0, 1, 2, 4], [1, 0, 2, 3], [1.0, float("nan"), 1.0, 1.0], (3, 5), "row 1 has nan in column 0"),
    "negative shape": ([0], [], [], (-1, 5), "shape must be"),
    "too many columns": ([0, 0], [], [], (1, 2**31), "shape must be"),
    "three dimensions": ([0, 0], [], [], (1, 1, 5), "shape must be"),
}


@pytest.mark.parametrize("name", WRONG_ARRAYS)
def test_arrays_that_are_no_csr_matrix_are_refused(name: str) -> None:
    crow, col, values, shape, message = WRONG_ARRAYS[name]
    arrays = torch.tensor(crow, dtype=torch.int64), torch.tensor(col, dtype=torch.int32), torch.tensor(values)
    with pytest.raises(ValueError, match=message):
        SparseEmbeddings(*arrays, shape)


@pytest.mark.parametrize(
    ("crow", "col", "values"),
    [("int32", "int32", "float32"), ("int64", "int64", "float32"), ("int64", "int32", "int64")],
)
def test_arrays_of_other_types_are_refused(crow: str, col: str, values: str) -> None:
    with pytest.raises(ValueError, match="must be int"):
        SparseEmbeddings(
            torch.zeros(1, dtype=getattr(torch, crow)),
            torch.zeros(0, dtype=getattr(torch, col)),
            torch.zeros(0, dtype=getattr(torch, values)),
            (0, V),
        )


def test_checks_can_be_left_out() -> None:
    arrays = torch.tensor([0, 1]), torch.tensor([99], dtype=torch.int32), torch.tensor([1.0])
    assert SparseEmbeddings(*arrays, (1, V), validate=False).nnz == 1


class TestRoundTrips:
    @given(dense_matrices)
    def test_dense(self, dense: Tensor) -> None:
        assert torch.equal(SparseEmbeddings.from_dense(dense).to_dense(), dense)

    @given(dense_matrices)
    def test_every_form_and_back(self, dense: Tensor) -> None:
        rows = SparseEmbeddings.from_dense(dense)
        forms = (
            SparseEmbeddings.from_rows(rows.to_list_of_dicts(), rows.shape[1]),
            SparseEmbeddings.from_scipy(rows.to_scipy()),
            SparseEmbeddings.from_torch(rows.to_torch()),
            SparseEmbeddings.from_torch(rows.to_torch(torch.sparse_csr)),
            SparseEmbeddings.concatenate([SparseEmbeddings.empty(rows.shape[1]), *rows]),
            SparseEmbeddings(rows.crow_indices(), rows.col_indices(), rows.values(), rows.shape),
            pickle.loads(pickle.dumps(rows)),
            copy.deepcopy(rows),
            rows.clone(),
        )
        for form in forms:
            assert form.shape == rows.shape
            assert form.dtype == rows.dtype
            assert form.crow_indices().tolist() == rows.crow_indices().tolist()
            assert form.col_indices().tolist() == rows.col_indices().tolist()
            assert form.values().tolist() == rows.values().tolist()

    @given(dense_matrices)
    def test_numpy(self, dense: Tensor) -> None:
        rows = SparseEmbeddings.from_dense(dense)
        for array in (rows.numpy(), np.asarray(rows), np.array(rows), rows.to_scipy().toarray()):
            assert array.dtype == np.float32
            assert np.array_equal(array, dense.numpy())
        assert np.asarray(rows, dtype=np.float64).dtype == np.float64

    def test_a_single_row(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        row = embeddings[3]
        assert np.array_equal(row.numpy(), dense[3].numpy())
        assert np.array_equal(row.to_scipy().toarray(), dense[3:4].numpy())
        assert torch.equal(SparseEmbeddings.from_torch(row.to_torch()).to_dense(), dense[3])
        assert row.to_list_of_dicts() == [row.to_dict()]
        with pytest.raises(ValueError, match="to_list_of_dicts"):
            embeddings.to_dict()
        with pytest.raises(ValueError, match="layout must be"):
            row.to_torch(torch.sparse_csr)

    def test_numpy_never_shares_the_dense_array(self, embeddings: SparseEmbeddings) -> None:
        with pytest.raises(ValueError, match="always a copy"):
            np.array(embeddings, copy=False)

    def test_16_bits_become_32(self, dense: Tensor) -> None:
        for dtype in (torch.bfloat16, torch.float16):
            rows = SparseEmbeddings.from_dense(dense.to(dtype))
            assert rows.to_scipy().dtype == np.float32
            assert np.array_equal(rows.to_scipy().toarray(), dense.to(dtype).float().numpy())
            assert np.array_equal(rows.numpy().astype(np.float32), dense.to(dtype).float().numpy())


class TestFromOutside:
    def test_scipy_shares_memory(self, embeddings: SparseEmbeddings) -> None:
        csr = embeddings.to_scipy()
        assert np.shares_memory(csr.data, embeddings.values().numpy())
        assert np.shares_memory(csr.indices, embeddings.col_indices().numpy())
        again = SparseEmbeddings.from_scipy(csr)
        assert again.values().data_ptr() == embeddings.values().data_ptr()
        assert again.col_indices().data_ptr() == embeddings.col_indices().data_ptr()

    @pytest.mark.parametrize("form", ["coo", "csc", "lil", "dok", "bsr", "csr_matrix"])
    def test_other_scipy_forms(self, form: str, dense: Tensor) -> None:
        maker = getattr(sparse, form if "matrix" in form else f"{form}_array")
        assert torch.equal(SparseEmbeddings.from_scipy(maker(dense.numpy())).to_dense(), dense)

    def test_scipy_of_64_bits_whole_numbers_and_read_only(self) -> None:
        csr = sparse.csr_array(np.array([[0, 2], [3, 0]]))
        csr.indices, csr.indptr = csr.indices.astype(np.int64), csr.indptr.astype(np.int64)
        assert SparseEmbeddings.from_scipy(csr).to_list_of_dicts() == [{1: 2.0}, {0: 3.0}]
        csr = sparse.csr_array(np.array([[0, 2.5]]))
        for array in (csr.data, csr.indices, csr.indptr):
            array.flags.writeable = False
        assert SparseEmbeddings.from_scipy(csr).dtype == torch.float64

    def test_unsorted_is_sorted_and_zeros_go(self) -> None:
        csr = sparse.csr_array(([1.0, 2.0, 0.0, 4.0], [3, 0, 2, 1], [0, 2, 4]), shape=(2, 5))
        rows = SparseEmbeddings.from_scipy(csr)
        assert rows.crow_indices().tolist() == [0, 2, 3]
        assert rows.col_indices().tolist() == [0, 3, 1]
        assert rows.values().tolist() == [2.0, 1.0, 4.0]
        assert csr.indices.tolist() == [3, 0, 2, 1], "the argument is left alone"

    @pytest.mark.parametrize(
        ("indptr", "columns", "message"),
        [
            ([0, 2, 4], [3, 3, 2, 1], "row 0 has \\[3, 3\\]"),
            ([0, 2, 4], [3, 0, 2, 7], "row 1 has 7"),
            ([0, 2, 4], [3, 0, -1, 1], "row 1 has -1"),
            ([0, 3, 2], [3, 0, 2, 1], "row starts"),
            ([0, 5, 4], [3, 0, 2, 1], "must not fall"),
        ],
    )
    def test_damaged_scipy_is_refused(self, indptr: list[int], columns: list[int], message: str) -> None:
        csr = sparse.csr_array((2, 5), dtype=np.float32)
        csr.indptr, csr.indices = np.array(indptr, dtype=np.int32), np.array(columns, dtype=np.int32)
        csr.data = np.ones(4, dtype=np.float32)
        with pytest.raises(ValueError, match=message):
            SparseEmbeddings.from_scipy(csr)

    def test_one_dimensional_scipy_is_refused(self) -> None:
        with pytest.raises(ValueError, match="expected a matrix"):
            SparseEmbeddings.from_scipy(sparse.coo_array(np.array([0.0, 1.0])))

    def test_uncoalesced_torch_is_summed(self) -> None:
        places = torch.tensor([[1, 0, 1, 1], [2, 1, 2, 0]])
        coo = torch.sparse_coo_tensor(places, torch.tensor([1.0, 2.0, 3.0, 0.0]), (2, 4), check_invariants=True)
        assert SparseEmbeddings.from_torch(coo).to_list_of_dicts() == [{1: 2.0}, {2: 4.0}]

    def test_rows_of_dicts(self) -> None:
        rows = SparseEmbeddings.from_rows([{3: 1.5, 0: 2}, {}, {np.int64(4): np.float32(0.25), 1: 0.0}], 5)
        assert rows.to_list_of_dicts() == [{0: 2.0, 3: 1.5}, {}, {4: 0.25}]
        assert rows.dtype == torch.float32

    @pytest.mark.parametrize(
        ("row", "error"),
        [
            ({5: 1.0}, ValueError),
            ({-1: 1.0}, ValueError),
            ({10**30: 1.0}, ValueError),
            ({1.0: 1.0}, TypeError),
            ({"1": 1.0}, TypeError),
            ({True: 1.0}, TypeError),
        ],
    )
    def test_wrong_columns_are_named_by_row(self, row: dict[int, float], error: type[Exception]) -> None:
        with pytest.raises(error, match="row 1 has"):
            SparseEmbeddings.from_rows([{0: 1.0}, row], 5)

    def test_a_weight_that_float32_cannot_hold_is_refused(self) -> None:
        with pytest.raises(ValueError, match="must be finite, row 0 has inf in column 2"):
            SparseEmbeddings.from_rows([{2: 1e300}], 5)


class TestIndexing:
    @settings(max_examples=300)
    @given(dense_matrices, row_indices)
    def test_rows_as_of_the_dense_array(self, dense: Tensor, index: object) -> None:
        rows, array = SparseEmbeddings.from_dense(dense), dense.numpy()
        if index == []:
            index = np.zeros(0, dtype=np.int64)
        try:
            expected = array[index]  # type: ignore[call-overload]
        except IndexError:
            with pytest.raises(IndexError):
                rows[index]
            return
        for each in (index, np.array(index) if isinstance(index, list) else index):
            found = rows[each]
            assert found.shape == expected.shape
            assert np.array_equal(found.numpy(), expected)
            SparseEmbeddings(found.crow_indices(), found.col_indices(), found.values(), found.shape)

    def test_kinds_of_integers(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        for index in (3, -2, np.int32(3), np.uint8(3), np.array(3), torch.tensor(3)):
            assert embeddings[index].shape == (V,)
            assert torch.equal(embeddings[index].to_dense(), dense[3])
        for rows in (np.array([3], dtype=np.uint16), torch.tensor([3]), (range(3, 4)), [torch.tensor(3)]):
            assert torch.equal(embeddings[rows].to_dense(), dense[3:4])

    def test_masks(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        mask = torch.tensor([True, False, False, True, True])
        for each in (mask, mask.numpy(), mask.tolist()):
            assert torch.equal(embeddings[each].to_dense(), dense[mask])

    def test_row_and_column(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        column = int(dense[3].nonzero()[0])
        assert embeddings[3, column] == embeddings[3][column] == dense[3, column]
        assert embeddings[3][column - V] == dense[3, column]
        assert embeddings[2, 0] == 0
        assert torch.equal(embeddings[:, column], dense[:, column])
        assert torch.equal(embeddings[[3, 3, 0], column], dense[[3, 3, 0], column])
        assert torch.equal(embeddings[1:3, :].to_dense(), dense[1:3])
        assert embeddings[3][:] is not None
        assert embeddings[3][(column,)] == dense[3, column]

    @pytest.mark.parametrize(
        ("index", "error"),
        [
            (5, IndexError),
            (-6, IndexError),
            ([0, 5], IndexError),
            (torch.tensor([-6]), IndexError),
            ([True, False], IndexError),
            (torch.ones(6, dtype=torch.bool), IndexError),
            ([[0, 1]], IndexError),
            ([0.5], IndexError),
            ((0, 99), IndexError),
            ((0, 1, 2), IndexError),
            (0.5, TypeError),
            (torch.tensor(2.0), TypeError),
            (True, TypeError),
            (np.True_, TypeError),
            (torch.tensor(True), TypeError),
            (None, TypeError),
            ("0", TypeError),
            (..., TypeError),
            ({0}, TypeError),
            ((0, [0, 1]), TypeError),
            ((slice(None), slice(0, 2)), TypeError),
        ],
    )
    def test_what_is_no_index(self, index: object, error: type[Exception], embeddings: SparseEmbeddings) -> None:
        with pytest.raises(error):
            embeddings[index]

    def test_going_through_the_rows(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        rows = list(embeddings)
        assert len(rows) == len(embeddings) == N
        assert all(torch.equal(row.to_dense(), expected) for row, expected in zip(rows, dense, strict=True))
        assert [float(value) for value in embeddings[1]] == dense[1].tolist()

    def test_a_slice_is_a_view(self, embeddings: SparseEmbeddings) -> None:
        part = embeddings[1:4]
        begin = int(embeddings.crow_indices()[1])
        assert part.values().data_ptr() == embeddings.values()[begin:].data_ptr()

    def test_concatenate(self, dense: Tensor, embeddings: SparseEmbeddings) -> None:
        joined = SparseEmbeddings.concatenate([embeddings[3:], embeddings[0], embeddings[:0]])
        assert torch.equal(joined.to_dense(), torch.cat([dense[3:], dense[:1]]))
        assert SparseEmbeddings.concatenate([embeddings[0]]).shape == (1, V)
        with pytest.raises(ValueError, match="dimensions \\[3, 17\\]"):
            SparseEmbeddings.concatenate([embeddings, SparseEmbeddings.empty(3)])
        with pytest.raises(ValueError, match="dimensions \\[\\]"):
            SparseEmbeddings.concatenate([])


class TestTopK:
    @given(dense_matrices, st.integers(1, 10))
    def test_keeps_the_greatest_by_absolute_value(self, dense: Tensor, k: int) -> None:
        for kept in (
            SparseEmbeddings.from_dense(dense).top_k(k),
            SparseEmbeddings.from_dense(dense, max_active_dims=k),
        ):
            SparseEmbeddings(kept.crow_indices(), kept.col_indices(), kept.values(), kept.shape)
            for row, full in zip(kept.to_dense(), dense, strict=True):
                assert int((row != 0).sum()) == min(k, int((full != 0).sum()))
                assert torch.equal(row[row != 0], full[row != 0])
                assert row.abs().sort().values[-k:].tolist() == full.abs().sort().values[-k:].tolist()

    def test_of_equals_the_first_stay(self) -> None:
        rows = SparseEmbeddings.from_dense(torch.tensor([[1.0, 0.0, -1.0, 1.0], [0.0, 0.0, 5.0, 0.0]]))
        assert rows.top_k(2).to_list_of_dicts() == [{0: 1.0, 2: -1.0}, {2: 5.0}]
        assert rows[0].top_k(1).to_dict() == {0: 1.0}
        assert rows.top_k(2).shape == rows.shape

    def test_fewer_than_one_is_refused(self, embeddings: SparseEmbeddings, dense: Tensor) -> None:
        with pytest.raises(ValueError, match="k must be at least 1, got 0"):
            embeddings.top_k(0)
        with pytest.raises(ValueError, match="max_active_dims must be at least 1, got -1"):
            SparseEmbeddings.from_dense(dense, max_active_dims=-1)


class TestFiles:
    def test_saved_is_loaded(self, tmp_path: Path, embeddings: SparseEmbeddings) -> None:
        for number, each in enumerate((embeddings, embeddings[3], embeddings[1:4], embeddings.half(), embeddings[:0])):
            each.save(tmp_path / f"{number}.safetensors")
            again = SparseEmbeddings.load(str(tmp_path / f"{number}.safetensors"))
            assert again.equal(each)
            assert again.shape == each.shape
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number}.safetensors" for number in range(5)]

    def test_saving_again_replaces_the_file(self, tmp_path: Path, embeddings: SparseEmbeddings) -> None:
        embeddings.save(tmp_path / "rows")
        embeddings[:2].save(tmp_path / "rows")
        assert SparseEmbeddings.load(tmp_path / "rows").shape == (2, V)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            SparseEmbeddings.load(tmp_path / "none")

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("crow", torch.tensor([0, 9, 2, 3, 4, 5]), "row starts"),
            ("col", torch.full((5,), 99, dtype=torch.int32), "columns must lie in"),
            ("col", torch.zeros(5, dtype=torch.int64), "columns must be int32"),
            ("values", torch.zeros(5, dtype=torch.int32), "floating point"),
            ("values", torch.zeros(4), "as many columns as values"),
            ("shape", torch.tensor([5.0, 17.0]), "list of integers"),
            ("shape", torch.tensor([[5, 17]]), "list of integers"),
            ("shape", torch.tensor([5, 17, 1]), "shape must be"),
            ("shape", torch.tensor([4, 17]), "row starts"),
            ("shape", torch.tensor([-1, 17]), "shape must be"),
            ("other", torch.zeros(1), "expected the tensors"),
        ],
    )
    def test_damaged_files_are_refused(self, name: str, value: Tensor, message: str, tmp_path: Path) -> None:
        path = tmp_path / "rows.safetensors"
        SparseEmbeddings.from_dense(torch.eye(5, V)).save(path)
        save_file({**load_file(path), name: value}, path)
        with pytest.raises(LoadError, match=message):
            SparseEmbeddings.load(path)

    def test_every_truncation_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.safetensors"
        SparseEmbeddings.from_dense(torch.eye(2, 3)).save(path)
        data = path.read_bytes()
        for size in range(len(data)):
            path.write_bytes(data[:size])
            with pytest.raises(LoadError):
                SparseEmbeddings.load(path)


def test_torch_saves_embeddings_and_loads_them_without_trust(tmp_path: Path) -> None:
    rows = SparseEmbeddings.from_rows([{3: 1.5}, {0: -2.0, 4: 0.25}], 6)
    torch.save({"corpus": rows, "row": rows[1], "ids": ["a", "b"]}, tmp_path / "corpus.pt")
    loaded = torch.load(tmp_path / "corpus.pt")
    assert isinstance(loaded["corpus"], SparseEmbeddings)
    assert loaded["corpus"].equal(rows)
    assert loaded["row"].to_dict() == {0: -2.0, 4: 0.25}


def test_arrays_out_of_a_file_of_torchs_are_checked(tmp_path: Path) -> None:
    rows = SparseEmbeddings.from_rows([{3: 1.5}, {0: -2.0, 4: 0.25}], 6)
    rows.col_indices()[2] = 6  # behind the last column
    torch.save(rows, tmp_path / "corpus.pt")
    with pytest.raises(ValueError, match="columns must lie in"):
        torch.load(tmp_path / "corpus.pt")
