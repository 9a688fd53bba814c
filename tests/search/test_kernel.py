from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from search_helpers import random_rows

from sparse_encoder.search import SparseIndex
from sparse_encoder.search.kernel import accumulate_numpy, kernel
from sparse_encoder.search.rows import as_rows
from sparse_encoder.search.segment import build_segments


@pytest.fixture(autouse=True)
def fresh_choice() -> Iterator[None]:
    kernel.cache_clear()
    yield
    kernel.cache_clear()


def test_by_hand() -> None:
    # Term 0 is in documents 0 and 2, term 1 in none, term 2 in document 2.
    starts = np.array([0, 2, 2, 3], dtype=np.int32)
    documents = np.array([0, 2, 2], dtype=np.int32)
    weights = np.array([1.0, 2.0, 4.0], dtype=np.float32)
    for accumulate in (accumulate_numpy, kernel()):
        scores = np.ones(3, dtype=np.float32)
        accumulate(starts, documents, weights, [0, 1, 2], np.array([3.0, 9.0, 0.5], dtype=np.float32), scores)
        assert scores.tolist() == [4.0, 1.0, 9.0]


def test_scipy_is_found_here() -> None:
    assert kernel() is not accumulate_numpy


def test_scipy_and_numpy_agree_to_the_bit() -> None:
    # Weights with few binary digits make every product exact, so that also a processor that fuses agrees.
    documents = random_rows(200, 40, seed=1)
    documents.data = np.ceil(documents.data * 64) / 64
    (segment,) = build_segments(as_rows(documents, "document"))
    query = np.ceil(np.random.default_rng(2).random(40) * 64).astype(np.float32) / 64
    found = []
    for accumulate in (accumulate_numpy, kernel()):
        scores = np.zeros(200, dtype=np.float32)
        accumulate(segment.starts, segment.documents, segment.weights, range(40), query, scores)
        found.append(scores)
    np.testing.assert_array_equal(*found)
    np.testing.assert_array_equal(found[0], documents.toarray() @ query)


@pytest.mark.parametrize(
    "replacement",
    [
        None,  # the module is gone
        SimpleNamespace(),  # the routine is gone
        SimpleNamespace(csc_matvec=lambda *arguments: None),  # it does something else
        SimpleNamespace(csc_matvec=lambda one: None),  # it takes something else
    ],
)
def test_numpy_steps_in(replacement: object, monkeypatch: pytest.MonkeyPatch) -> None:
    documents, queries = random_rows(50, 17, seed=3), random_rows(5, 17, seed=4)
    expected = SparseIndex.build(documents).search_arrays(queries, 7)
    kernel.cache_clear()
    monkeypatch.setitem(sys.modules, "scipy.sparse._sparsetools", replacement)
    assert kernel() is accumulate_numpy
    found = SparseIndex.build(documents).search_arrays(queries, 7)
    np.testing.assert_array_equal(found.positions, expected.positions)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)
