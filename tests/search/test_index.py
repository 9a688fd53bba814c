from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from scipy import sparse
from search_helpers import best, random_rows, sums_in_term_order

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.search import Hit, SparseIndex, ranking, segment
from sparse_encoder.search.rows import as_rows

#                 terms:  0    1    2    3
DOCUMENTS = torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0, 3.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0], [0.0, 3.0, 0.0, 0.0]])


def test_by_hand() -> None:
    index = SparseIndex.build(SparseEmbeddings.from_dense(DOCUMENTS), ["a", "b", "c", "d"])
    queries = SparseEmbeddings.from_dense(torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.5, 9.0]]))
    assert index.search(queries, top_k=3) == [
        [Hit("b", 6.0), Hit("d", 6.0), Hit("c", 3.0)],
        [Hit("a", 1.0), Hit("c", 0.5)],  # the others share no term
    ]
    assert (len(index), index.dim, index.ids, index.num_postings) == (4, 4, ("a", "b", "c", "d"), 7)
    assert repr(index) == "SparseIndex(4 documents, 4 terms, 7 postings)"


def test_arrays_hold_the_same_hits() -> None:
    index = SparseIndex.build(SparseEmbeddings.from_dense(DOCUMENTS))
    queries = SparseEmbeddings.from_dense(torch.tensor([[0.0] * 4, [1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.5, 9.0]]))
    found = index.search_arrays(queries, top_k=3)
    assert found.offsets.tolist() == [0, 0, 3, 5]
    assert found.positions.tolist() == [1, 3, 2, 0, 2]
    assert found.scores.tolist() == [6.0, 6.0, 3.0, 1.0, 0.5]
    assert [array.dtype.name for array in found] == ["int64", "float32", "int64"]
    assert index.search(queries, top_k=3)[1] == [Hit("1", 6.0), Hit("3", 6.0), Hit("2", 3.0)]


def test_every_kind_of_embeddings_gives_the_same_index() -> None:
    expected = SparseIndex.build(SparseEmbeddings.from_dense(DOCUMENTS)).search_arrays(DOCUMENTS)
    kinds = [
        DOCUMENTS.to_sparse(),
        DOCUMENTS.numpy(),
        sparse.csr_array(DOCUMENTS.numpy()),
        sparse.csc_matrix(DOCUMENTS.double().numpy()),
        SparseEmbeddings.from_dense(DOCUMENTS).bfloat16(),
    ]
    for kind in kinds:
        found = SparseIndex.build(kind).search_arrays(DOCUMENTS)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_one_query() -> None:
    index = SparseIndex.build(DOCUMENTS)
    assert index.search(SparseEmbeddings.from_dense(DOCUMENTS)[1], 1) == [[Hit("1", 9.0)]]


@pytest.mark.parametrize("top_k", [1, 5, 63, 64, 65, 700, 2000])
def test_scores_are_float32_sums_in_the_order_of_terms(top_k: int) -> None:
    documents, queries = random_rows(1500, 23, seed=0), random_rows(6, 23, seed=1)
    scores = sums_in_term_order(queries, documents)
    found = SparseIndex.build(documents).search_arrays(queries, top_k)
    for query, expected in enumerate(best(row, top_k) for row in scores):
        hits = slice(*found.offsets[query : query + 2])
        assert found.positions[hits].tolist() == [position for position, _ in expected]
        np.testing.assert_allclose(found.scores[hits], [score for _, score in expected], rtol=1e-6)


def test_segments_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    documents, queries = random_rows(700, 23, seed=2), random_rows(9, 23, seed=3)
    documents.data = np.ceil(documents.data * 4) / 4  # many equal scores
    expected = SparseIndex.build(documents).search_arrays(queries, 20, num_threads=1)
    for most_documents, most_postings in [(1, 2**31 - 1), (64, 2**31 - 1), (700, 40), (129, 600)]:
        monkeypatch.setattr(segment, "MAX_DOCUMENTS", most_documents)
        monkeypatch.setattr(segment, "MAX_POSTINGS", most_postings)
        index = SparseIndex.build(documents)
        assert index.num_postings == documents.nnz
        for num_threads in (1, 2, 16):
            found = index.search_arrays(queries, 20, num_threads=num_threads)
            single = [index.search_arrays(queries[[row]], 20, num_threads=num_threads) for row in range(9)]
            for part, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(part, theirs)
            np.testing.assert_array_equal(np.concatenate([one.positions for one in single]), expected.positions)
            np.testing.assert_array_equal(np.concatenate([one.scores for one in single]), expected.scores)


def test_large_searches_use_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = segment.build_segments(as_rows(DOCUMENTS, "document"))
    queries = as_rows(DOCUMENTS[:3], "query")
    monkeypatch.setattr(ranking.os, "cpu_count", lambda: 6)
    monkeypatch.setattr(ranking, "POSTINGS_PER_THREAD", 3)
    # Terms 0 to 2 are in 2, 3 and 2 documents: queries 0 to 2 meet 4, 3 and 7 postings.
    assert ranking._worthwhile_threads([one], queries) == 4
    monkeypatch.setattr(ranking, "POSTINGS_PER_THREAD", 100)
    assert ranking._worthwhile_threads([one], queries) == 1


def test_no_matrix_of_queries_by_documents() -> None:
    documents, queries = random_rows(4000, 17, seed=5), random_rows(2000, 17, seed=6)
    index = SparseIndex.build(documents)
    index.search_arrays(queries[:1])
    tracemalloc.start()
    try:
        index.search_arrays(queries, 10, num_threads=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2000 * 4000 * 4 / 10


@pytest.mark.parametrize("num_documents", [0, 3])
def test_empty_rows_are_legal(num_documents: int) -> None:
    index = SparseIndex.build(sparse.csr_array((num_documents, 4), dtype=np.float32))
    assert index.search(DOCUMENTS) == [[], [], [], []]
    assert SparseIndex.build(DOCUMENTS).search(sparse.csr_array((0, 4), dtype=np.float32)) == []
    assert SparseIndex.build(DOCUMENTS).search_arrays(torch.zeros(2, 4)).offsets.tolist() == [0, 0, 0]


def test_queries_must_fit_the_index() -> None:
    with pytest.raises(ValueError, match="must have the 4 terms of the index, got 5"):
        SparseIndex.build(DOCUMENTS).search(torch.ones(1, 5))


@pytest.mark.parametrize(("num_threads", "error"), [(0, ValueError), (1.5, TypeError)])
def test_a_bad_number_of_threads_is_refused(num_threads: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="num_threads must be"):
        SparseIndex.build(DOCUMENTS).search(DOCUMENTS, num_threads=num_threads)


def test_what_is_given_is_not_changed() -> None:
    documents = random_rows(30, 17, seed=7)
    before = documents.copy()
    index = SparseIndex.build(documents)
    index.search(documents)
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(documents, name), getattr(before, name))
