from __future__ import annotations

import numpy as np
import pytest
import torch

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.encoding.inspection import decode, intersection, sparsity

MATRIX = torch.tensor([[0.0, 2.0, 0.0, 1.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 4.0, 0.0]])
FORMS = [lambda m: m, lambda m: m.to_sparse(), SparseEmbeddings.from_dense]
NAMES = ["a", "b", "c", "d", "e"]


def names(ids: list[int]) -> list[str]:
    return [NAMES[number] for number in ids]


@pytest.mark.parametrize("form", FORMS)
def test_sparsity(form) -> None:  # noqa: ANN001
    assert sparsity(form(MATRIX)) == {"active_dims": 2.0, "sparsity_ratio": 1 - 2 / 5}
    assert sparsity(form(MATRIX[0])) == {"active_dims": 3.0, "sparsity_ratio": 1 - 3 / 5}


def test_sparsity_of_nothing() -> None:
    assert sparsity(torch.zeros(0, 5)) == sparsity(torch.zeros(3, 0)) == {"active_dims": 0.0, "sparsity_ratio": 1.0}
    assert sparsity(SparseEmbeddings.empty(5)) == {"active_dims": 0.0, "sparsity_ratio": 1.0}


@pytest.mark.parametrize("form", FORMS)
def test_intersection(form) -> None:  # noqa: ANN001
    shared = intersection(form(MATRIX[0]), form(MATRIX))
    expected = torch.tensor([[0.0, 4.0, 0.0, 1.0, 9.0], [0.0] * 5, [0.0, 2.0, 0.0, 4.0, 0.0]])
    assert torch.equal(shared.to_dense(), expected)
    assert isinstance(shared, type(form(MATRIX)))
    one = intersection(form(MATRIX[2]), form(MATRIX[0]))
    assert one.shape == (5,)
    assert torch.equal(one.to_dense(), expected[2])


def test_intersection_keeps_what_is_above_zero() -> None:
    shared = intersection(torch.tensor([1.0, -1.0, -1.0, 0.0]), torch.tensor([1.0, 1.0, -2.0, 3.0]))
    assert shared.to_dense().tolist() == [1.0, 0.0, 2.0, 0.0]
    assert shared.is_sparse
    assert shared.coalesce().values().tolist() == [1.0, 2.0]


def test_intersection_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="embeddings_1 must be one embedding"):
        intersection(MATRIX, MATRIX)
    with pytest.raises(ValueError, match="same width, got 4 and 5"):
        intersection(MATRIX[0, :4], MATRIX)


@pytest.mark.parametrize("form", FORMS)
def test_decode(form) -> None:  # noqa: ANN001
    assert decode(form(MATRIX[0]), names, None) == [("e", 3.0), ("b", 2.0), ("d", 1.0)]
    assert decode(form(MATRIX), names, 2) == [[("e", 3.0), ("b", 2.0)], [], [("d", 4.0), ("a", 1.0)]]
    assert decode(form(MATRIX[2]), names, 9) == [("d", 4.0), ("a", 1.0), ("b", 1.0)]  # equal weights: by dimension
    assert decode(form(MATRIX[1]), names, None) == []


@pytest.mark.parametrize("top_k", [0, -1, True, 1.5])
def test_decode_refuses_a_number_of_terms_that_is_none(top_k: object) -> None:
    with pytest.raises(ValueError, match="top_k must be a positive integer"):
        decode(MATRIX, names, top_k)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [[1.0, 2.0], np.ones(3), None])
def test_only_tensors_and_rows_are_looked_into(wrong: object) -> None:
    for look in (sparsity, lambda value: decode(value, names, None), lambda value: intersection(value, value)):
        with pytest.raises(TypeError, match="must be a torch tensor or SparseEmbeddings"):
            look(wrong)  # type: ignore[arg-type]


def test_three_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or 2 axes, got 3"):
        sparsity(torch.zeros(1, 2, 3))
