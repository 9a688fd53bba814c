"""Rows 63 to 69 of bad_inputs.py: a clear error naming the offender, or the documented valid result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_helpers import VOCABULARY, write_masked_language_model
from numpy.typing import NDArray
from scipy import sparse
from search_helpers import random_rows

from sparse_encoder import SparseEncoder
from sparse_encoder.checkpoint import IndexCorruptError
from sparse_encoder.search import Hit, SparseIndex, index, segment

DIM = 5
GOOD = sparse.csr_array(np.array([[1, 0, 2, 0, 0], [0, 3, 0, 0, 1]], dtype=np.float32))


def matrix(indptr: list[int], indices: list[int], data: list[float], dtype: type = np.float32) -> sparse.csr_array:
    """Make a CSR matrix that scipy does not look at closely."""
    made = sparse.csr_array((len(indptr) - 1, DIM), dtype=dtype)
    made.indptr, made.indices = np.array(indptr, dtype=np.int32), np.array(indices, dtype=np.int32)
    made.data = np.array(data, dtype=dtype)
    return made


# Row 63: weights and indices


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (matrix([0, 1, 2], [0, 3], [1.0, np.nan]), r"finite.*row 1 has nan .*3"),
        (matrix([0, 1, 2], [0, 3], [1.0, np.inf]), r"finite.*row 1 has inf .*3"),
        (matrix([0, 1, 2], [0, 3], [1.0, -2.0]), r"not negative, document 1 has -2.0 for term 3"),
        (matrix([0, 1, 2], [0, 3], [1.0, 1e300], np.float64), r"finite in float32.*document 1 has inf for term 3"),
        (matrix([0, 1, 3], [0, 3, 3], [1.0, 1.0, 1.0]), r"row 1 has \[3, 3\]"),
        (matrix([0, 1, 2], [0, DIM], [1.0, 1.0]), r"\[0, 5\), row 1 has 5"),
        (matrix([0, 1, 2], [0, -1], [1.0, 1.0]), r"\[0, 5\), row 1 has -1"),
    ],
)
def test_row_63_weights_that_are_no_weights_are_refused(bad: sparse.csr_array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseIndex.build(bad)
    with pytest.raises(ValueError, match=message.replace("document", "query")):
        SparseIndex.build(GOOD).search(bad)


def test_row_63_unsorted_zero_and_wide_input_is_brought_into_order() -> None:
    expected = SparseIndex.build(GOOD)
    unsorted = matrix([0, 2, 4], [2, 0, 4, 1], [2.0, 1.0, 1.0, 3.0])
    with_zeros = matrix([0, 3, 5], [0, 2, 4, 1, 4], [1.0, 2.0, 0.0, 3.0, 1.0])
    tiny = matrix([0, 3, 5], [0, 2, 4, 1, 4], [1.0, 2.0, 1e-300, 3.0, 1.0], np.float64)  # 0 in float32
    integers = GOOD.astype(np.int64)
    for documents in (unsorted, with_zeros, tiny, integers, GOOD.astype(np.float64)):
        made = SparseIndex.build(documents)
        assert made.num_postings == 4
        assert made.search(documents) == expected.search(GOOD)


# Row 64: empty texts


def test_row_64_empty_documents_and_queries_are_legal_and_never_found() -> None:
    documents = matrix([0, 0, 1, 1], [2], [1.0])
    made = SparseIndex.build(documents, ["empty", "full", "last"])
    assert len(made) == 3
    queries = matrix([0, 0, 1, 2], [2, 4], [2.0, 1.0])
    assert made.search(queries, top_k=3) == [[], [Hit("full", 2.0)], []]


# Row 65: top_k


def test_row_65_top_k_from_none_to_more_than_there_are() -> None:
    made = SparseIndex.build(GOOD)
    assert made.search(GOOD, top_k=0) == [[], []]
    assert made.search(GOOD, top_k=10**12) == [[Hit("0", 5.0)], [Hit("1", 10.0)]]
    assert made.search(GOOD, top_k=np.int64(1)) == [[Hit("0", 5.0)], [Hit("1", 10.0)]]
    with pytest.raises(ValueError, match="top_k must be at least 0, got -1"):
        made.search(GOOD, top_k=-1)
    for wrong in (1.5, "3", True, None):
        with pytest.raises(TypeError, match="top_k must be an integer"):
            made.search(GOOD, top_k=wrong)  # type: ignore[arg-type]


# Row 66: ids


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (["a", "a"], ValueError, "'a' is there 2 times"),
        (["a", 7], TypeError, r"document 1 has 7 \(int\)"),
        ([2**63, "b"], TypeError, "document 0 has 9223372036854775808"),
        (["a", None], TypeError, "document 1 has None"),
        (["a"], ValueError, "one id for each of the 2 documents, got 1"),
    ],
)
def test_row_66_bad_ids_are_refused(ids: list[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SparseIndex.build(GOOD, ids)


def test_row_66_odd_texts_are_ids_like_any_other(tmp_path: Path) -> None:
    ids = ["a\nb\tc", str(2**63)]
    SparseIndex.build(GOOD, ids).save(tmp_path)
    assert SparseIndex.load(tmp_path).search(GOOD) == [[Hit(ids[0], 5.0)], [Hit(ids[1], 10.0)]]


# Row 67: damaged files


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    SparseIndex.build(GOOD, ["a", "b"], fingerprint="model").save(tmp_path / "index")
    return tmp_path / "index"


@pytest.mark.slow
def test_row_67_every_flipped_byte_is_noticed(saved: Path) -> None:
    expected = SparseIndex.load(saved).search(GOOD, fingerprint="model")
    random = np.random.default_rng(0)
    unnoticed = 0
    for path in sorted(saved.iterdir()):
        data = path.read_bytes()
        for place in range(len(data)):
            flipped = bytearray(data)
            flipped[place] ^= 1 << int(random.integers(8))
            path.write_bytes(flipped)
            try:
                assert SparseIndex.load(saved).search(GOOD, fingerprint="model") == expected
                unnoticed += 1  # a blank that became another one
            except IndexCorruptError as error:
                assert str(saved) in str(error)
        path.write_bytes(data)
    assert unnoticed <= 3


@pytest.mark.slow
def test_row_67_every_truncation_is_noticed(saved: Path) -> None:
    for path in sorted(saved.iterdir()):
        data = path.read_bytes()
        for length in range(len(data) - 1):  # the last byte of the manifest is a line end
            path.write_bytes(data[:length])
            with pytest.raises(IndexCorruptError):
                SparseIndex.load(saved)
        path.write_bytes(data)


def test_row_67_a_missing_file_is_named(saved: Path) -> None:
    path = sorted(saved.glob("*.safetensors"))[1]
    path.unlink()
    with pytest.raises(IndexCorruptError, match=f"{path.name}.*is missing"):
        SparseIndex.load(saved)


def resign(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and make its hash right again, as somebody who means harm would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    change(manifest)
    manifest["sha256"] = index._FOLDER.digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(version=2), "is of version 2; this library reads versions up to 1.*Update"),
        (lambda m: m.update(version="1"), "is of version 1; this"),
        (lambda m: m.update(version=True), "is of version True"),
        (lambda m: m.update(format="a cake"), "must be a sparse-encoder search index, got 'a cake'"),
        (lambda m: m.update(settings=[]), "must have settings and files"),
        (lambda m: m["settings"].update(dim=4), "4 terms need 5 starts"),
        (lambda m: m["settings"].update(dim=-1), "dim and the sizes of segments must be integers"),
        (lambda m: m["settings"].update(segments=[1]), "each of the 1 documents, got 2"),
        (lambda m: m["settings"].update(segments=[1, 1]), "2 segments need 3 files, got 2"),
        (lambda m: m["settings"].update(segments=[10**15]), "each of the 1000000000000000 documents, got 2"),
        (lambda m: m["settings"].update(fingerprint=5), "fingerprint must be a text"),
        (lambda m: m["settings"].update(more=1), "settings must be dim, fingerprint and segments"),
        (lambda m: m["files"][0].update(name="../../secret"), "lists a file as"),
        (lambda m: m["files"][0].update(name="/etc/passwd"), "lists a file as"),
        (lambda m: m["files"][0].update(bytes=True), "lists a file as"),
        (lambda m: m["files"].reverse(), "texts are kept as bytes and ends"),
    ],
)
def test_row_67_a_manifest_that_lies_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, saved: Path
) -> None:
    resign(saved, change)
    with pytest.raises(IndexCorruptError, match=message):
        SparseIndex.load(saved)


def test_row_67_a_link_out_of_the_folder_is_refused(saved: Path, tmp_path: Path) -> None:
    path = sorted(saved.glob("*.safetensors"))[0]
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IndexCorruptError, match="leads out of the folder"):
        SparseIndex.load(saved)


# Row 68: postings that would make the search write where it must not


def save_with(postings: dict[str, NDArray[Any]], folder: Path) -> None:
    """Write an index of two documents whose hashes are right and whose postings are the given ones."""
    good = SparseIndex.build(GOOD)._segments[0]._asdict()
    good.pop("num_documents")
    settings = {"dim": DIM, "fingerprint": None, "segments": [2]}
    ids = index.pack_strings(["a", "b"])
    index._FOLDER.write(folder, settings, [ids, {**good, **postings}])


def int32(*values: int) -> NDArray[np.int32]:
    return np.array(values, dtype=np.int32)


@pytest.mark.parametrize(
    ("postings", "message"),
    [
        ({"starts": int32(0, 2, 1, 3, 3, 4)}, "term starts must not fall, term 1 goes from 2 to 1"),
        ({"starts": int32(0, 1, 2, 3, 3, 5)}, r"must go from 0 to 4, got \(0, 5\)"),
        ({"starts": int32(1, 1, 2, 3, 3, 4)}, r"must go from 0 to 4, got \(1, 4\)"),
        ({"starts": int32(0, 1, 2, 3, 3, 3)}, r"must go from 0 to 4, got \(0, 3\)"),
        ({"starts": int32(0, 4)}, "5 terms need 6 starts"),
        ({"documents": int32(0, 1, 0, 2)}, r"each document must lie in \[0, 2\), got 2"),
        ({"documents": int32(0, -1, 0, 1)}, r"each document must lie in \[0, 2\), got -1"),
        ({"starts": int32(0, 2, 2, 3, 3, 4), "documents": int32(1, 0, 0, 1)}, "term 0 has 1 before 0"),
        ({"starts": int32(0, 2, 2, 3, 3, 4), "documents": int32(0, 0, 0, 1)}, "term 0 has 0 before 0"),
        ({"weights": np.array([1, 3, np.nan, 1], dtype=np.float32)}, "weights must be positive and finite, got nan"),
        ({"weights": np.array([1, 3, -2, 1], dtype=np.float32)}, "weights must be positive and finite, got -2"),
        ({"weights": np.array([1, 3, 2], dtype=np.float32)}, "as many documents as weights"),
        ({"weights": np.array([1, 3, 2, 1], dtype=np.float64)}, "must be int32, int32 and float32"),
        ({"weights": np.ones((2, 2), dtype=np.float32)}, "as many documents as weights"),
        ({"starts": np.zeros((0,), dtype=np.int32)}, "5 terms need 6 starts"),
        ({"more": int32(1)}, "a segment has documents, starts and weights"),
    ],
)
def test_row_68_postings_that_lie_are_refused(postings: dict[str, NDArray[Any]], message: str, tmp_path: Path) -> None:
    save_with(postings, tmp_path)
    with pytest.raises(IndexCorruptError, match=message):
        SparseIndex.load(tmp_path)


@pytest.mark.parametrize("indptr", [[0, 2, 1], [0, 1, 3], [1, 1, 2], [0, -1, 2]])
def test_row_68_row_starts_that_lie_are_refused_at_build(indptr: list[int]) -> None:
    message = "row starts|index pointer"  # ours, or scipy's
    with pytest.raises(ValueError, match=message):
        SparseIndex.build(matrix(indptr, [0, 3], [1.0, 1.0]))
    with pytest.raises(ValueError, match=message):
        SparseIndex.build(GOOD).search(matrix(indptr, [0, 3], [1.0, 1.0]))


def test_row_67_numbers_in_the_other_byte_order_are_refused(tmp_path: Path) -> None:
    good = SparseIndex.build(GOOD)._segments[0]
    save_with({name: getattr(good, name).byteswap() for name in ("starts", "documents", "weights")}, tmp_path)
    with pytest.raises(IndexCorruptError, match="must go from 0 to 4"):
        SparseIndex.load(tmp_path)


def test_row_68_more_postings_than_32_bits_number_make_more_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    documents, queries = random_rows(50, DIM, seed=0), random_rows(4, DIM, seed=1)
    expected = SparseIndex.build(documents).search(queries)
    assert segment.MAX_POSTINGS == 2**31 - 1
    monkeypatch.setattr(segment, "MAX_POSTINGS", DIM)  # a document never has more postings than there are terms
    split = SparseIndex.build(documents)
    assert len(split._segments) > 10
    assert all(len(part.documents) <= DIM and part.starts.dtype == np.int32 for part in split._segments)
    assert split.search(queries) == expected


# Row 69: vectors of two models


def test_row_69_vectors_of_another_model_are_refused(tmp_path: Path) -> None:
    SparseIndex.build(GOOD, fingerprint="model 1").save(tmp_path)
    made = SparseIndex.load(tmp_path)
    assert made.search(GOOD, fingerprint="model 1") == SparseIndex.build(GOOD).search(GOOD)
    for search in (made.search, made.search_arrays):
        with pytest.raises(ValueError, match=r"pass fingerprint= to the search.*\(model.fingerprint\).*'model 1'"):
            search(GOOD)
    with pytest.raises(ValueError, match="queries were made by 'model 2', the documents by 'model 1'"):
        made.search(GOOD, fingerprint="model 2")
    with pytest.raises(ValueError, match="the documents by None"):
        SparseIndex.build(GOOD).search_arrays(GOOD, fingerprint="model 2")
    with pytest.raises(ValueError, match="must have the 5 terms of the index, got 6"):
        made.search(torch.ones(1, 6), fingerprint="model 1")


def test_row_69_the_same_vocabulary_with_other_weights_is_refused(tmp_path: Path) -> None:
    one, two = (
        SparseEncoder(str(write_masked_language_model(tmp_path / str(seed), seed=seed)), device="cpu")
        for seed in (3, 4)
    )
    assert one.tokenizer.fingerprint == two.tokenizer.fingerprint
    made = SparseIndex.build(one.encode_document(["rain sun", "stone"]), fingerprint=one.fingerprint)
    queries = two.encode_query(["rain"])
    assert queries.shape == (1, len(VOCABULARY))
    with pytest.raises(ValueError, match="encode both with one model"):
        made.search(queries, fingerprint=two.fingerprint)
    with pytest.raises(ValueError, match="pass fingerprint="):
        made.search(queries)
    (hits,) = made.search(one.encode_query(["rain"]), fingerprint=one.fingerprint)
    assert sorted(hit.id for hit in hits) == ["0", "1"]
