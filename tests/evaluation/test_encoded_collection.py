"""Vectors of a collection: made once, kept, searched, and what a search costs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from collections_helpers import DOCUMENTS, QRELS, QUERIES
from evaluation_helpers import GivenModel, random_model

from sparse_encoder.checkpoint import ConfigError, LoadError
from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation.collection_search import search_collection, search_cost
from sparse_encoder.evaluation.collections import Collection
from sparse_encoder.evaluation.encoded_collection import (
    EncodedCollection,
    Encoding,
    encode_collection,
    identity_of,
    load_encoded,
    save_encoded,
)
from sparse_encoder.search import BM25, SparseIndex

SMALL = Collection(name="small", corpus=DOCUMENTS, queries=QUERIES, qrels=QRELS)


def model(similarity: str = "dot") -> GivenModel:
    return random_model([*DOCUMENTS.values(), *QUERIES.values()], seed=1, density=0.5, similarity_fn_name=similarity)


def index_of(encoded: EncodedCollection) -> SparseIndex:
    return SparseIndex.build(encoded.documents, encoded.document_ids)


def test_documents_lie_by_falling_id_and_only_judged_queries_are_encoded() -> None:
    made = model()
    encoded = encode_collection(made, SMALL, Encoding(batch_size=3, max_active_dims=2))
    assert encoded.document_ids == ["d5", "d4", "d3", "d2", "d1"]
    assert encoded.query_ids == ["q1", "q2"]
    asked = [{"kind": call["kind"], "texts": call["texts"]} for call in made.calls]
    assert asked == [
        {"kind": "document", "texts": [DOCUMENTS[name] for name in encoded.document_ids]},
        {"kind": "query", "texts": [QUERIES["q1"], QUERIES["q2"]]},
    ]
    assert {(call["batch_size"], call["max_active_dims"]) for call in made.calls} == {(3, 2)}
    expected = SparseEmbeddings.from_dense(made.rows[DOCUMENTS["d1"]].unsqueeze(0), max_active_dims=2)
    assert encoded.documents[4:].equal(expected)


def test_a_run_is_the_dot_products_of_what_shares_a_term() -> None:
    made = model()
    run = search_collection(index_of(encode_collection(made, SMALL, Encoding())), *_queries(made))
    for query in ("q1", "q2"):
        scores = {name: float(made.rows[QUERIES[query]] @ made.rows[text]) for name, text in DOCUMENTS.items()}
        assert run[query] == pytest.approx({name: score for name, score in scores.items() if score > 0}, rel=1e-6)
        assert list(run[query].values()) == sorted(run[query].values(), reverse=True)
    assert {
        len(found) for found in search_collection(index_of(_queries(made)[1]), *_queries(made), top_k=2).values()
    } == {2}


def _queries(made: GivenModel) -> tuple[SparseEmbeddings, EncodedCollection]:
    encoded = encode_collection(made, SMALL, Encoding())
    return encoded.queries, encoded


def test_cosines_are_dot_products_of_rows_of_length_1() -> None:
    encoded = encode_collection(model("cosine"), SMALL, Encoding())
    norms = np.linalg.norm(encoded.documents.numpy(), axis=1)
    np.testing.assert_allclose(norms[norms > 0], 1, rtol=1e-6)
    with pytest.raises(ValueError, match=r"\('dot', 'cosine'\), the model's is 'euclidean'"):
        encode_collection(model("euclidean"), SMALL, Encoding())


def test_a_document_with_the_querys_own_id_is_skipped_where_ids_mean_something() -> None:
    texts = {"a": "one", "b": "two", "c": "three"}
    rows = {"one": torch.tensor([3.0, 0, 0]), "two": torch.tensor([2.0, 1, 0]), "three": torch.tensor([1.0, 0, 0])}
    plain = Collection(name="own", corpus=texts, queries={"a": "one"}, qrels={"a": {"b": 1}})
    for collection, expected in ((plain, ["a", "b"]), (replace(plain, skip_own_id=True), ["b", "c"])):
        encoded = encode_collection(GivenModel(rows), collection, Encoding())
        run = search_collection(index_of(encoded), encoded.queries, encoded, top_k=2)
        assert list(run["a"]) == expected


def test_ties_at_the_cut_are_those_of_trec_eval() -> None:
    rows = {text: torch.tensor([1.0]) for text in ("one", "two", "three", "ask")}
    corpus = {"a": "one", "b": "two", "c": "three"}
    collection = Collection(name="ties", corpus=corpus, queries={"q": "ask"}, qrels={"q": {"b": 1}})
    encoded = encode_collection(GivenModel(rows), collection, Encoding())
    assert list(search_collection(index_of(encoded), encoded.queries, encoded, top_k=2)["q"]) == ["c", "b"]


def test_what_a_search_costs_by_hand() -> None:
    documents = SparseEmbeddings.from_dense(torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0]]))
    queries = SparseEmbeddings.from_dense(torch.tensor([[1.0, 0, 1, 1], [0, 1, 0, 0]]))
    cost = search_cost(SparseIndex.build(documents), queries, documents)
    assert (cost.query_terms, cost.document_terms, cost.num_postings) == (2.0, 5 / 3, 5)
    assert cost.postings_per_query == pytest.approx((3 + 1 + 0 + 1) / 2)
    assert cost.avg_flops == pytest.approx(cost.postings_per_query / 3)
    assert cost.index_megabytes == pytest.approx((5 * 8 + 5 * 4) / 1e6)
    assert 0 < cost.search_ms_per_query < 1000
    small = search_cost(SparseIndex.build(documents), queries, documents, eight_bits=True)
    assert small.index_megabytes == pytest.approx((5 * 5 + 5 * 4) / 1e6)


def test_vectors_come_back_and_others_are_refused(tmp_path: Path) -> None:
    bm25 = BM25().fit(DOCUMENTS.values())
    settings = Encoding(max_active_dims=3)
    folder = tmp_path / "new" / "vectors"
    identity = identity_of(SMALL, bm25, settings)
    assert load_encoded(SMALL, identity, folder) is None
    encoded = encode_collection(bm25, SMALL, settings)
    save_encoded(encoded, identity, folder)
    again = load_encoded(SMALL, identity_of(SMALL, bm25, replace(settings, batch_size=7)), folder)
    assert again is not None
    assert again.documents.equal(encoded.documents)
    assert again.queries.equal(encoded.queries)
    changed = replace(SMALL, corpus={**DOCUMENTS, "d5": "another text"})
    for collection, encoder, how, reason in (
        (changed, bm25, settings, "of another collection"),
        (SMALL, BM25(k1=2).fit(DOCUMENTS.values()), settings, "of another model"),
        (SMALL, bm25, Encoding(), "of another max active dims: 3, not None"),
    ):
        with pytest.raises(ConfigError, match=reason):
            load_encoded(collection, identity_of(collection, encoder, how), folder)
    (folder / "documents.safetensors").write_bytes(b"damaged")
    with pytest.raises(LoadError):
        load_encoded(SMALL, identity, folder)
    (folder / "encoded.json").write_text(json.dumps([]))
    with pytest.raises(ConfigError, match="must hold a JSON object"):
        load_encoded(SMALL, identity, folder)


def test_texts_cannot_be_moved_about_behind_the_identity() -> None:
    bm25 = BM25().fit(DOCUMENTS.values())
    one = replace(SMALL, corpus={**DOCUMENTS, "d6": "ab"})
    other = replace(SMALL, corpus={**DOCUMENTS, "d6a": "b"})
    assert identity_of(one, bm25, Encoding()) != identity_of(other, bm25, Encoding())
    reordered = replace(SMALL, corpus=dict(reversed(DOCUMENTS.items())))
    assert identity_of(reordered, bm25, Encoding()) == identity_of(SMALL, bm25, Encoding())
    reordered = replace(SMALL, queries=dict(reversed(QUERIES.items())))  # rows of vectors are in this order
    assert identity_of(reordered, bm25, Encoding()) != identity_of(SMALL, bm25, Encoding())


def test_vectors_of_something_else() -> None:
    with pytest.raises(ValueError, match=r"vectors of \(5, 2\) documents and queries, got \(4, 2\)"):
        EncodedCollection(
            collection=SMALL,
            documents=SparseEmbeddings.from_dense(torch.ones(4, 3)),
            queries=SparseEmbeddings.from_dense(torch.ones(2, 3)),
        )
    with pytest.raises(ValueError, match="max_active_dims must be at least 1, got 0"):
        Encoding(max_active_dims=0)
