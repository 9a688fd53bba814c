from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparse_encoder.checkpoint import IndexCorruptError
from sparse_encoder.search import BM25, Hit, SparseIndex, bm25

TEXTS = ["The cat sat on the mat", "a dog, a cat; a DOG", "", "birds sing"]
# Without stop words: cat sat mat / dog cat dog / (none) / birds sing. N = 4, lengths 3, 3, 0, 2, mean 2.
IDF_CAT = math.log(1 + (4 - 2 + 0.5) / (2 + 0.5))
IDF_DOG = math.log(1 + (4 - 1 + 0.5) / (1 + 0.5))
LONG = 1.2 * (1 - 0.75 + 0.75 * 3 / 2)  # k1 times the length factor of a text of three words


def test_weights_by_hand() -> None:
    model = BM25().fit(TEXTS)
    assert list(model.vocabulary) == ["birds", "cat", "dog", "mat", "sat", "sing"]
    assert model.get_embedding_dimension() == 6
    documents = model.encode_document(TEXTS)
    expected = torch.zeros(4, 6)
    expected[0, [1, 3, 4]] = 1 / (1 + LONG)
    expected[1, 1], expected[1, 2] = 1 / (1 + LONG), 2 / (2 + LONG)
    expected[3, [0, 5]] = 1 / (1 + 1.2)
    torch.testing.assert_close(documents.to_dense(), expected)
    query = model.encode_query("Dog and dog and cat and horse")
    torch.testing.assert_close(query.to_dense(), torch.tensor([0, IDF_CAT, 2 * IDF_DOG, 0, 0, 0]))


def test_search_by_hand() -> None:
    model = BM25().fit(TEXTS)
    index = SparseIndex.build(model.encode_document(TEXTS), ["mat", "dogs", "none", "birds"])
    (hits,) = index.search(model.encode_query(["dog or cat"]))
    assert [hit.id for hit in hits] == ["dogs", "mat"]
    assert hits[0].score == pytest.approx(IDF_CAT / (1 + LONG) + IDF_DOG * 2 / (2 + LONG), rel=1e-6)
    assert hits[1] == Hit("mat", pytest.approx(IDF_CAT / (1 + LONG), rel=1e-6))


def plain_bm25(texts: Sequence[str], queries: Sequence[str], k1: float, b: float) -> np.ndarray[Any, Any]:
    """Score every pair word by word, as bm25s does with method="lucene"."""
    documents = [re.findall(r"\w+", text.lower()) for text in texts]
    mean = sum(map(len, documents)) / len(documents)
    scores = np.zeros((len(queries), len(texts)))
    for row, query in enumerate(queries):
        for word in re.findall(r"\w+", query.lower()):
            having = sum(word in document for document in documents)
            for column, document in enumerate(documents):
                count = document.count(word)
                idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
                if count:
                    scores[row, column] += idf * count / (count + k1 * (1 - b + b * len(document) / mean))
    return scores


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.0, 1.0), (2.0, 0.0), (0.9, 0.4)])
def test_a_second_implementation_agrees(k1: float, b: float) -> None:
    random = np.random.default_rng(0)
    words = [f"w{number}" for number in range(60)]
    share = 1 / np.arange(1, 61)
    texts = [" ".join(random.choice(words, size=size, p=share / share.sum())) for size in random.integers(1, 40, 80)]
    queries = [" ".join(random.choice([*words, "unknown"], size=6)) for _ in range(12)]
    model = BM25(k1=k1, b=b, stop_words=None).fit(texts)
    index = SparseIndex.build(model.encode_document(texts))
    expected = plain_bm25(texts, queries, k1, b)
    for hits, scores in zip(index.search(model.encode_query(queries), top_k=80), expected, strict=True):
        assert {int(hit.id) for hit in hits} == set(np.flatnonzero(scores))
        np.testing.assert_allclose([hit.score for hit in hits], [scores[int(hit.id)] for hit in hits], rtol=1e-5)


def test_stop_words() -> None:
    assert set(BM25(stop_words=None).fit(["The cat"]).vocabulary) == {"the", "cat"}
    assert set(BM25(stop_words=["CAT"]).fit(["The cat"]).vocabulary) == {"the"}
    with pytest.raises(ValueError, match=r"no stop words for 'klingon'; choose from \['english'\]"):
        BM25(stop_words="klingon")
    with pytest.raises(TypeError, match="stop words must be texts, got 3"):
        BM25(stop_words=[3])  # type: ignore[list-item]


def test_encoding_options() -> None:
    model = BM25().fit(TEXTS)
    whole = model.encode_document(TEXTS)
    assert torch.equal(model.encode_document(TEXTS, batch_size=3, show_progress_bar=False).to_dense(), whole.to_dense())
    assert model.encode_document(TEXTS, max_active_dims=1)[1].to_dense().nonzero().tolist() == [[2]]
    assert model.encode_query("cat").shape == (6,)
    assert torch.equal(model.encode_query("cat", prompt="dog ").to_dense(), model.encode_query("dog cat").to_dense())
    assert model.encode_document([]).shape == (0, 6)
    with pytest.raises(ValueError, match="no named prompts"):
        model.encode_query("cat", prompt_name="query")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        model.encode_document(TEXTS, batch_size=0)


def test_the_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    BM25().fit(TEXTS).encode_document(TEXTS, batch_size=2, show_progress_bar=True)
    assert "2/2" in capsys.readouterr().err


def test_similarity_is_the_score() -> None:
    model = BM25().fit(TEXTS)
    scores = model.similarity(model.encode_query(["cat", "dog"]), model.encode_document(TEXTS))
    assert model.similarity_fn_name == "dot"
    assert scores.shape == (2, 4)
    assert float(scores[1, 1]) == pytest.approx(IDF_DOG * 2 / (2 + LONG), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": -0.1}, "k1"),
        ({"k1": math.inf}, "k1"),
        ({"k1": math.nan}, "k1"),
        ({"b": 1.1}, "b must"),
        ({"b": -1}, "b"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BM25(**options)  # type: ignore[arg-type]


def test_texts_that_are_no_texts_are_refused() -> None:
    with pytest.raises(TypeError, match=r"text 1 is None \(NoneType\)"):
        BM25().fit(["a cat", None])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"text 3 is 7 \(int\)"):
        BM25().fit(TEXTS).encode_document(["a", "b", "c", 7], batch_size=2)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="got one text"):
        BM25().fit("a cat")
    with pytest.raises(ValueError, match="must be words in the texts, got none in 2 texts"):
        BM25().fit(["the", "?"])
    with pytest.raises(ValueError, match="fit must be called first"):
        BM25().encode_query("cat")
    with pytest.raises(ValueError, match="fit must be called first"):
        BM25().save("nowhere")


def test_saved_is_loaded(tmp_path: Path) -> None:
    model = BM25(k1=0.9, b=0.4, stop_words=["on", "the"]).fit(TEXTS)
    model.save(tmp_path / "bm25")
    loaded = BM25.load(tmp_path / "bm25")
    assert (loaded.k1, loaded.b, loaded.stop_words) == (0.9, 0.4, frozenset({"on", "the"}))
    assert dict(loaded.vocabulary) == dict(model.vocabulary)
    assert torch.equal(loaded.encode_document(TEXTS).to_dense(), model.encode_document(TEXTS).to_dense())
    assert torch.equal(loaded.encode_query(TEXTS).to_dense(), model.encode_query(TEXTS).to_dense())
    assert loaded.fingerprint == model.fingerprint


def test_the_fingerprint_is_that_of_the_weights() -> None:
    model = BM25().fit(TEXTS)
    assert model.fingerprint == BM25().fit(list(TEXTS)).fingerprint
    others = [BM25(k1=1.0).fit(TEXTS), BM25(stop_words=None).fit(TEXTS), BM25().fit([*TEXTS, "sing"])]
    assert len({model.fingerprint, *(other.fingerprint for other in others)}) == 4


@pytest.mark.parametrize(
    ("settings", "arrays", "message"),
    [
        ({"b": 7}, {}, "b must be from 0 to 1"),
        ({"k1": "x"}, {}, "cannot be used"),
        ({"stop_words": [1]}, {}, "stop words must be texts"),
        ({"mean_length": 0.0}, {}, "mean_length must be a positive number"),
        ({}, {"idf": np.ones(5)}, "one positive float64 number for each word, got float64 .* for 6 words"),
        ({}, {"idf": np.full(6, np.nan)}, "one positive float64 number for each word"),
        ({}, {"ends": np.array([5, 8, 11, 14, 17, 99])}, "must rise from 0 to 21"),
        ({}, {"bytes": np.full(21, 0xFF, dtype=np.uint8)}, "cannot be used"),
        ({}, {"bytes": np.full(21, 0x61, dtype=np.uint8)}, "a word is there twice, 'aaa"),
    ],
)
def test_damaged_files_are_refused(
    settings: dict[str, object], arrays: dict[str, np.ndarray[Any, Any]], message: str, tmp_path: Path
) -> None:
    model = BM25().fit(TEXTS)
    bm25._FOLDER.write(tmp_path, {**model._settings(), **settings}, [{**model._arrays(), **arrays}])
    with pytest.raises(IndexCorruptError, match=message):
        BM25.load(tmp_path)


def test_an_index_is_no_bm25(tmp_path: Path) -> None:
    SparseIndex.build(torch.eye(2)).save(tmp_path)
    with pytest.raises(IndexCorruptError, match="must be a sparse-encoder BM25, got 'sparse-encoder search index'"):
        BM25.load(tmp_path)


def test_counts_of_a_long_text() -> None:
    text = "cat " * 1000
    weights = BM25().fit([text, "dog"]).encode_document(text)
    mean = (1000 + 1) / 2
    expected = 1000 / (1000 + 1.2 * (0.25 + 0.75 * 1000 / mean))
    assert weights.values().tolist() == pytest.approx([expected])
