"""Documents go to an engine and come back as from SparseIndex; requests have the documented form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

import numpy as np
import pytest
from engine_helpers import INDEXES, FakeEngine, Pauses, Scripted, running_engine
from scipy import sparse
from search_helpers import random_rows

import sparse_encoder.search.engines as engines
from sparse_encoder import SparseEmbeddings
from sparse_encoder.checkpoint import BackendError
from sparse_encoder.search import Hit, SparseIndex
from sparse_encoder.search.engines import Access, ElasticsearchIndex, OpenSearchIndex, RestIndex, Retry

DIM = 17
DOCUMENTS = SparseEmbeddings.from_scipy(random_rows(12, DIM, seed=1))
QUERIES = SparseEmbeddings.from_scipy(random_rows(5, DIM, seed=2))
IDS = [f"doc/{number} é" for number in range(12)]


@pytest.fixture(params=sorted(INDEXES))
def engine(request: pytest.FixtureRequest) -> Iterator[FakeEngine]:
    with running_engine(request.param) as running:
        yield running


@pytest.fixture
def index(engine: FakeEngine) -> Iterator[RestIndex]:
    with INDEXES[engine.distribution](engine.url, "passages", retry=Pauses().retry()) as opened:
        yield opened


def test_the_public_names() -> None:
    names = ["Access", "ElasticsearchIndex", "OpenSearchIndex", "RefusedDocumentsError", "RestIndex", "Retry"]
    assert engines.__all__ == names


@pytest.mark.parametrize("top_k", [1, 4, 100])
def test_hits_are_those_of_the_exact_index(index: RestIndex, top_k: int) -> None:
    index.create()
    index.add(DOCUMENTS, IDS)
    assert index.search(QUERIES, top_k) == SparseIndex.build(DOCUMENTS, IDS).search(QUERIES, top_k)


def test_nine_bits_lower_a_score_by_less_than_one_in_256() -> None:
    with running_engine(bits=9) as engine, ElasticsearchIndex(engine.url, "passages") as index:
        index.create()
        index.add(DOCUMENTS, IDS)
        exact = [dict(hits) for hits in SparseIndex.build(DOCUMENTS, IDS).search(QUERIES, 12)]
        for hits, scores in zip(index.search(QUERIES, 12), exact, strict=True):
            assert {hit.id for hit in hits} == scores.keys()
            losses = [1 - hit.score / scores[hit.id] for hit in hits]
            assert all(-1e-6 <= loss < 1 / 256 for loss in losses)
            assert max(losses) > 1e-5


def test_one_query_no_query_and_queries_without_terms(index: RestIndex) -> None:
    index.create()
    index.add(DOCUMENTS, IDS)
    assert index.search(QUERIES[1], 3) == index.search(QUERIES, 3)[1:2]
    assert index.search(SparseEmbeddings.empty(DIM)) == []
    assert index.search(SparseEmbeddings.from_rows([{}], DIM)) == [[]]
    assert index.search(QUERIES, 0) == [[]] * 5
    with pytest.raises(ValueError, match="top_k must be at least 0, got -1"):
        index.search(QUERIES, -1)


def test_a_document_without_terms_is_kept_and_never_found(index: RestIndex, engine: FakeEngine) -> None:
    index.create()
    index.add(SparseEmbeddings.from_rows([{}, {3: 2.0}], DIM), ["empty", "full"])
    assert engine.documents["passages"]["empty"] == {}
    assert index.search(SparseEmbeddings.from_rows([{3: 0.5}], DIM)) == [[Hit("full", 1.0)]]


def test_what_elasticsearch_is_sent() -> None:
    with running_engine() as engine, ElasticsearchIndex(engine.url, "passages", field="terms") as index:
        index.create()
        index.add(SparseEmbeddings.from_rows([{2: 0.5, 11: 2.0}], DIM), ["a"])
        index.search(SparseEmbeddings.from_rows([{11: 1.5}], DIM), 3)
        assert engine.mappings["passages"] == {
            "properties": {"terms": {"type": "sparse_vector", "index_options": {"prune": False}}}
        }
        assert engine.documents["passages"] == {"a": {"terms": {"t2": 0.5, "t11": 2.0}}}
        assert json.loads(engine.requests[-1].body)["query"] == {
            "sparse_vector": {"field": "terms", "query_vector": {"t11": 1.5}, "prune": False}
        }


def test_what_opensearch_is_sent() -> None:
    with running_engine("opensearch") as engine, OpenSearchIndex(engine.url, "passages", field="terms") as index:
        index.create()
        index.add(SparseEmbeddings.from_rows([{2: 0.5, 11: 2.0}], DIM), ["a"])
        index.search(SparseEmbeddings.from_rows([{11: 1.5}], DIM), 3)
        assert engine.mappings["passages"] == {"properties": {"terms": {"type": "rank_features"}}}
        assert engine.documents["passages"] == {"a": {"terms": {"2": 0.5, "11": 2.0}}}
        assert json.loads(engine.requests[-1].body)["query"] == {
            "neural_sparse": {"terms": {"query_tokens": {"11": 1.5}}}
        }
        assert engine.requests[-1].path.endswith("search_pipeline=_none")


def test_weights_arrive_as_they_are(index: RestIndex, engine: FakeEngine) -> None:
    weights = np.random.default_rng(5).lognormal(sigma=8, size=(1, DIM)).astype(np.float32)
    index.create()
    index.add(SparseEmbeddings.from_scipy(sparse.csr_array(weights)), ["a"])
    sent = engine.documents["passages"]["a"]["embedding"]
    assert [np.float32(weight) for weight in sent.values()] == weights[0].tolist()


def test_documents_go_in_batches_of_bytes(index: RestIndex, engine: FakeEngine) -> None:
    index.create()
    index.add(DOCUMENTS, IDS, batch_bytes=700)
    bodies = [request.body for request in engine.requests if request.path.endswith("_bulk")]
    assert 3 <= len(bodies) <= 10
    assert all(len(body) <= 700 for body in bodies)
    lengths = [len(body) for body in bodies]
    assert all(left + right > 700 for left, right in zip(lengths, lengths[1:], strict=False))
    index.add(DOCUMENTS, IDS, batch_bytes=1)  # none fits: each alone
    assert engine.paths().count("POST /passages/_bulk") == len(bodies) + 12
    assert list(engine.documents["passages"]) == IDS
    with pytest.raises(ValueError, match="batch_bytes must be at least 1, got 0"):
        index.add(DOCUMENTS, IDS, batch_bytes=0)


def test_adding_again_replaces(index: RestIndex, engine: FakeEngine) -> None:
    index.create()
    index.add(DOCUMENTS, IDS)
    before = index.search(QUERIES, 12)
    index.add(DOCUMENTS, IDS)
    assert len(engine.documents["passages"]) == 12
    assert index.search(QUERIES, 12) == before
    index.add(SparseEmbeddings.from_rows([{0: 1.0}], DIM), [IDS[3]])
    assert engine.documents["passages"][IDS[3]]["embedding"] in ({"t0": 1.0}, {"0": 1.0})


def test_create_is_for_once_and_says_so_gently(index: RestIndex, engine: FakeEngine) -> None:
    index.create()
    index.add(DOCUMENTS, IDS)
    index.create()
    assert len(engine.documents["passages"]) == 12
    assert engine.paths().count("GET /") == 1
    assert engine.paths().count("PUT /passages") == 1


def test_create_whose_answer_was_lost_succeeds(engine: FakeEngine) -> None:
    pauses = Pauses()
    with INDEXES[engine.distribution](engine.url, "passages", retry=pauses.retry()) as index:
        index.create()
        not_yet = Scripted(404, b'{"error": {"type": "index_not_found_exception", "reason": "no such index"}}')
        engine.scripted = [not_yet]
        index.create()
    assert engine.paths()[-3:] == ["GET /passages/_mapping", "PUT /passages", "GET /passages/_mapping"]


def test_credentials_are_sent() -> None:
    with running_engine() as engine:
        for access, expected in (
            (Access(api_key="a2V5"), "ApiKey a2V5"),
            (Access(basic_auth=("me", "pass:word")), "Basic bWU6cGFzczp3b3Jk"),
            (Access(), None),
        ):
            with ElasticsearchIndex(f"{engine.url}/", "passages", access=access) as index:
                index.create()
                assert engine.requests[-1].headers.get("Authorization") == expected


def test_the_address_may_have_a_prefix(engine: FakeEngine) -> None:
    url = f"{engine.url}/search/v1/"
    with INDEXES[engine.distribution](url, "passages") as index, pytest.raises(BackendError, match=f"GET {url}: "):
        index.create()
    assert engine.paths() == ["GET /search/v1/"]


def test_pauses_double_jitter_and_stop() -> None:
    pauses: list[float] = []
    retry = Retry(max_tries=6, first_delay_seconds=1, max_delay_seconds=6, sleep=pauses.append, random=Random(0))
    assert [retry.wait(tries) for tries in range(1, 7)] == [True] * 5 + [False]
    limits = [1, 2, 4, 6, 6]
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses, limits, strict=True))
    assert len({pause / limit for pause, limit in zip(pauses, limits, strict=True)}) == 5


@pytest.mark.parametrize(
    ("header", "least"),
    [("7", 7), ("Thu, 01 Jan 1970 00:16:50 GMT", 10), ("Thu, 01 Jan 1970 00:00:00 GMT", 0), ("soon", 0), (None, 0)],
)
def test_retry_after_comes_on_top(header: str | None, least: float) -> None:
    pauses = Pauses()
    assert pauses.retry(now=1000.0).wait(1, header)
    assert least + 0.5 <= pauses[0] <= least + 1


def test_a_server_that_asks_for_too_much_patience_is_left() -> None:
    pauses = Pauses()
    assert not pauses.retry(max_delay_seconds=5).wait(1, "6")
    assert pauses.retry(max_delay_seconds=5).wait(1, "5")
    assert pauses == [5]
