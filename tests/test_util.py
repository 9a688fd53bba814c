from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from sparse_encoder import util
from sparse_encoder.embeddings import SparseEmbeddings

MATRIX = torch.tensor([[0.0, 2.0, 0.0, -4.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.5, 0.0, 4.0, 0.0]])
FORMS = [lambda m: m, lambda m: m.to_sparse(), SparseEmbeddings.from_dense]


@pytest.mark.parametrize("form", FORMS)
def test_the_largest_by_absolute_value_are_kept(form) -> None:  # noqa: ANN001
    given = form(MATRIX)
    kept = util.select_max_active_dims(given, 2)
    assert isinstance(kept, type(given))
    assert kept.to_dense().tolist() == [[0, 0, 0, -4, 3], [0] * 5, [0, 1.5, 0, 4, 0]]
    assert torch.equal(given.to_dense(), MATRIX)
    assert util.select_max_active_dims(given, None) is given
    assert torch.equal(util.select_max_active_dims(given, 99).to_dense(), MATRIX)
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        util.select_max_active_dims(given, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_entries_of_an_array_are_a_tensor(dtype: type[np.floating]) -> None:
    given = MATRIX.numpy().astype(dtype)
    kept = util.select_max_active_dims(given, 1)
    assert isinstance(kept, torch.Tensor)
    assert kept.numpy().dtype == dtype
    assert kept.tolist() == [[0, 0, 0, -4, 0], [0] * 5, [0, 0, 0, 4, 0]]
    assert np.array_equal(given, MATRIX.numpy())
    assert util.select_max_active_dims(given, None) is given


@pytest.mark.parametrize("form", FORMS)
def test_rows_that_use_a_dimension_are_counted(form) -> None:  # noqa: ANN001
    assert util.compute_count_vector(form(MATRIX)).tolist() == [1, 2, 0, 2, 1]


@pytest.mark.parametrize("chunks", [(100, 500), (1, 2)])
@pytest.mark.parametrize("form", FORMS)
def test_search_by_hand(form, chunks: tuple[int, int]) -> None:  # noqa: ANN001
    hits = util.semantic_search(form(MATRIX[::2]), form(MATRIX), *chunks, top_k=2, score_function=util.dot_score)
    assert hits == [
        [{"corpus_id": 0, "score": 29.0}, {"corpus_id": 1, "score": 0.0}],
        [{"corpus_id": 2, "score": 19.25}, {"corpus_id": 1, "score": 0.0}],
    ]
    (best,) = util.semantic_search(form(MATRIX[0]), form(MATRIX), *chunks, top_k=9)
    assert [hit["corpus_id"] for hit in best] == [0, 1, 2]
    assert best[0]["score"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "corpus", [torch.empty(0), torch.empty(0, 5), np.array([]), SparseEmbeddings.from_dense(torch.empty(0, 5))]
)
def test_search_among_no_documents(corpus: object) -> None:
    assert util.semantic_search(MATRIX, corpus) == [[], [], []]
    assert util.semantic_search(MATRIX[0], corpus) == [[]]


def test_only_tensors_are_moved() -> None:
    batch = {"input_ids": torch.ones(2, 3), "task": "query"}
    moved = util.batch_to_device(batch, "meta")
    assert moved["input_ids"].device.type == "meta"
    assert moved["task"] == "query"
    assert batch["input_ids"].device.type == "cpu"


def test_all_names_are_there() -> None:
    assert sorted(util.__all__) == util.__all__
    assert all(callable(getattr(util, name)) for name in util.__all__)


@pytest.mark.parametrize("form", FORMS)
def test_embeddings_are_scaled_to_length_one(form) -> None:  # noqa: ANN001
    scaled = util.normalize_embeddings(form(MATRIX))
    assert type(scaled) is type(form(MATRIX))
    assert scaled.layout == form(MATRIX).layout
    lengths = MATRIX.norm(dim=1, keepdim=True)  # of the row of zeros 0, and then it stays
    torch.testing.assert_close(scaled.to_dense(), MATRIX / lengths.clamp(min=1e-12))
    one = util.normalize_embeddings(form(MATRIX[0]))
    torch.testing.assert_close(one.to_dense(), MATRIX[0] / lengths[0])


@pytest.mark.parametrize("form", FORMS)
def test_embeddings_as_scipys_coo_matrix(form) -> None:  # noqa: ANN001
    matrix = util.to_scipy_coo(form(MATRIX))
    assert matrix.format == "coo"
    assert matrix.nnz == 6
    assert np.array_equal(matrix.toarray(), MATRIX.numpy())


def test_records_are_written_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.Logger("a script")
    handler = util.LoggingHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s - %(message)s"))
    logger.addHandler(handler)
    logger.info("%d rows", 3)
    assert capsys.readouterr().out == "INFO - 3 rows\n"
    logger.info("%d rows", "three")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Logging error" in captured.err


def test_what_training_needs_is_there() -> None:
    assert util.is_training_available() is True
    assert util.is_datasets_available() is True
    assert util.pytorch_cos_sim is util.cos_sim
