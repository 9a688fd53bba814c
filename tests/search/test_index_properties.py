from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import sparse

from sparse_encoder.search import SparseIndex
from sparse_encoder.search.segment import Segment

WEIGHTS = st.one_of(st.just(0.0), st.floats(2.0**-10, 2.0**10, width=32))
FEW_WEIGHTS = st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0])  # exact sums and many equal scores


@st.composite
def matrices(draw: st.DrawFn, weights: st.SearchStrategy[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    dim = draw(st.integers(1, 12))

    def rows(most: int) -> NDArray[np.float64]:
        shape = (draw(st.integers(0, most)), dim)
        return draw(arrays.arrays(np.float64, shape, elements=weights, fill=st.just(0.0)))

    return rows(6), rows(150)


@settings(deadline=None)
@given(pair=matrices(FEW_WEIGHTS), top_k=st.integers(1, 160))
def test_the_order_of_exact_scores(pair: tuple[NDArray[np.float64], NDArray[np.float64]], top_k: int) -> None:
    queries, documents = pair
    found = SparseIndex.build(sparse.csr_array(documents)).search_arrays(sparse.csr_array(queries), top_k)
    for number, scores in enumerate(queries @ documents.T):
        hits = slice(*found.offsets[number : number + 2])
        order = np.argsort(-scores, kind="stable")[:top_k]
        expected = order[scores[order] > 0]
        np.testing.assert_array_equal(found.positions[hits], expected)
        np.testing.assert_array_equal(found.scores[hits], scores[expected])


@settings(deadline=None)
@given(pair=matrices(WEIGHTS), top_k=st.integers(1, 20))
def test_close_to_float64(pair: tuple[NDArray[np.float64], NDArray[np.float64]], top_k: int) -> None:
    queries, documents = pair
    found = SparseIndex.build(sparse.csr_array(documents)).search_arrays(sparse.csr_array(queries), top_k)
    for number, scores in enumerate(queries @ documents.T):
        hits = slice(*found.offsets[number : number + 2])
        positions = found.positions[hits]
        assert len(set(positions)) == len(positions) == min(top_k, np.count_nonzero(scores))
        np.testing.assert_allclose(found.scores[hits], scores[positions], rtol=1e-5)
        # Every score is that of its rank, up to rounding, and none that is clearly better was left out.
        np.testing.assert_allclose(found.scores[hits], np.sort(scores)[::-1][: len(positions)], rtol=1e-5)
        assert (np.diff(found.scores[hits]) <= 0).all()


DIM, DOCUMENTS = 4, 3
INDEX = SparseIndex.build(sparse.csr_array(np.array([[1, 0, 2, 0], [0, 3, 0, 1], [1, 1, 0, 0]], dtype=np.float32)))


@settings(deadline=None)
@given(
    name=st.sampled_from(["starts", "documents", "weights"]),
    place=st.integers(0, 6),
    bits=st.integers(0, 2**32 - 1),
    size=st.sampled_from([DOCUMENTS, DOCUMENTS - 1, DOCUMENTS + 1]),
)
def test_damaged_postings_are_refused_or_harmless(name: str, place: int, bits: int, size: int) -> None:
    (good,) = INDEX._segments
    changed = {key: getattr(good, key).copy() for key in ("starts", "documents", "weights")}
    numbers = changed[name].view(np.uint32)
    numbers[place % len(numbers)] ^= np.uint32(bits)
    segment = Segment(**changed, num_documents=size)
    try:
        segment.check(DIM)
    except ValueError:
        return
    found = SparseIndex([segment], ["id"] * size, DIM, None).search_arrays(np.eye(DIM, dtype=np.float32), 10)
    assert ((found.positions >= 0) & (found.positions < size)).all()
    assert (found.scores > 0).all()
    assert len(found.scores) == 6  # every posting is found by the query for its term, and by no other
