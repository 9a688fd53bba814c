"""Row 70 of bad_inputs.py: a failing engine is tried again, each document's error told, a re-run is by id."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from engine_helpers import INDEXES, FakeEngine, Pauses, Scripted, running_engine
from scipy import sparse
from search_helpers import random_rows

from sparse_encoder import SparseEmbeddings
from sparse_encoder.checkpoint import BackendError
from sparse_encoder.search import SparseIndex
from sparse_encoder.search.engines import Access, ElasticsearchIndex, RefusedDocumentsError, RestIndex

DIM = 17
DOCUMENTS = SparseEmbeddings.from_scipy(random_rows(6, DIM, seed=1))
QUERIES = SparseEmbeddings.from_scipy(random_rows(3, DIM, seed=2))
IDS = ["a", "b", "c", "d", "e", "f"]


@pytest.fixture(params=sorted(INDEXES))
def engine(request: pytest.FixtureRequest) -> Iterator[FakeEngine]:
    with running_engine(request.param) as running:
        yield running


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def index(engine: FakeEngine, pauses: Pauses) -> Iterator[RestIndex]:
    with INDEXES[engine.distribution](engine.url, "passages", retry=pauses.retry()) as opened:
        opened.create()
        yield opened


def assert_all_is_there(index: RestIndex, engine: FakeEngine) -> None:
    assert sorted(engine.documents["passages"]) == IDS
    assert index.search(QUERIES, 6) == SparseIndex.build(DOCUMENTS, IDS).search(QUERIES, 6)


# Refused connection


def test_row_70_a_refused_connection_is_tried_again_and_named(pauses: Pauses) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else can have the port
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        index = ElasticsearchIndex(url, "passages", retry=pauses.retry(4))
        with pytest.raises(
            BackendError, match=rf"GET {url}/: ConnectionRefusedError.*tried 4 times\. Is the engine up"
        ):
            index.create()
    assert len(pauses) == 3
    assert all(longest / 2 <= pause <= longest for pause, longest in zip(pauses, (1, 2, 4), strict=True))


def test_row_70_an_unknown_host_is_not_tried_again(pauses: Pauses, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(BackendError, match="gaierror.*Name or service not known"):
        ElasticsearchIndex("http://nowhere.invalid", "passages", retry=pauses.retry()).create()
    assert pauses == []


def test_row_70_a_server_that_says_nothing_is_given_up(pauses: Pauses) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        access = Access(timeout_seconds=0.05)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        index = ElasticsearchIndex(url, "passages", access=access, retry=pauses.retry(2))
        with pytest.raises(BackendError, match="TimeoutError: timed out; tried 2 times"):
            index.create()
    assert len(pauses) == 1


# 429, 502, 503, 504


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_row_70_a_busy_server_is_tried_again(index: RestIndex, engine: FakeEngine, pauses: Pauses, status: int) -> None:
    engine.scripted = [Scripted(status, b"<html>busy</html>"), Scripted(status, headers=(("Retry-After", "9"),))]
    index.add(DOCUMENTS, IDS)
    assert len(pauses) == 2
    assert 0.5 <= pauses[0] <= 1
    assert 9 + 1 <= pauses[1] <= 9 + 2
    assert_all_is_there(index, engine)


def test_row_70_a_server_that_stays_busy_is_given_up(index: RestIndex, engine: FakeEngine, pauses: Pauses) -> None:
    engine.scripted = [Scripted(429, b'{"error": {"type": "full", "reason": "queue full"}}')] * 4
    with pytest.raises(BackendError, match="_mapping: answered 429: full: queue full; tried 4 times"):
        index.add(DOCUMENTS, IDS)
    assert len(pauses) == 3
    assert engine.documents["passages"] == {}
    index.add(DOCUMENTS, IDS)
    assert_all_is_there(index, engine)


def test_row_70_a_server_that_asks_for_an_hour_is_left(index: RestIndex, engine: FakeEngine, pauses: Pauses) -> None:
    engine.scripted = [Scripted(503, headers=(("Retry-After", "3600"),))]
    with pytest.raises(BackendError, match="503.*asks to wait '3600'; tried 1 times"):
        index.search(QUERIES)
    assert pauses == []


def test_row_70_other_refusals_are_not_tried_again(index: RestIndex, engine: FakeEngine, pauses: Pauses) -> None:
    reason = b'{"error": {"type": "x", "reason": "failed", "caused_by": {"type": "y", "reason": "too many clauses"}}}'
    engine.scripted = [Scripted(400, reason), Scripted(401), Scripted(302, headers=(("Location", "/"),))]
    with pytest.raises(BackendError, match="answered 400: x: failed, caused by y: too many clauses"):
        index.search(QUERIES)
    with pytest.raises(BackendError, match=r"answered 401: no reason given\. Check the credentials"):
        index.search(QUERIES)
    with pytest.raises(BackendError, match="answered 302"):
        index.search(QUERIES)
    assert pauses == []


# Partial bulk failure


def test_row_70_refused_documents_are_named_after_the_rest_went_through(index: RestIndex, engine: FakeEngine) -> None:
    engine.item_errors = {"b": [(400, "no number")], "e": [(413, "too long")]}
    with pytest.raises(RefusedDocumentsError, match="2 of 6 documents were refused: 'b': 400 .*'e': 413 ") as caught:
        index.add(DOCUMENTS, IDS, batch_bytes=1)
    assert caught.value.reasons == {
        "b": "400 mapper_parsing_exception: no number",
        "e": "413 mapper_parsing_exception: too long",
    }
    assert isinstance(caught.value, BackendError)
    assert sorted(engine.documents["passages"]) == ["a", "c", "d", "f"]
    assert engine.paths()[-1] == "POST /passages/_refresh"
    index.add(DOCUMENTS, IDS)  # the cause is gone; by id, so nothing is there twice
    assert_all_is_there(index, engine)


def test_row_70_many_refused_documents_are_counted(index: RestIndex, engine: FakeEngine) -> None:
    ids = [f"d{number}" for number in range(25)]
    engine.item_errors = {name: [(400, "no")] for name in ids}
    with pytest.raises(RefusedDocumentsError, match="; and 15 more") as caught:
        index.add(SparseEmbeddings.from_rows([{1: 1.0}] * 25, DIM), ids)
    assert list(caught.value.reasons) == ids


def test_row_70_documents_the_engine_was_too_busy_for_are_sent_again(
    index: RestIndex, engine: FakeEngine, pauses: Pauses
) -> None:
    engine.item_errors = {"b": [(429, "queue full")] * 2, "d": [(503, "no shard")]}
    index.add(DOCUMENTS, IDS)
    bodies = [request.body for request in engine.requests if request.path == "/passages/_bulk"]
    sent = [[json.loads(line)["index"]["_id"] for line in body.splitlines()[::2]] for body in bodies]
    assert sent == [IDS, ["b", "d"], ["b"]]
    assert len(pauses) == 2
    assert sorted(engine.documents["passages"]) == IDS


def test_row_70_documents_the_engine_stays_too_busy_for_are_named(index: RestIndex, engine: FakeEngine) -> None:
    engine.item_errors = {"b": [(429, "queue full")] * 4, "c": [(400, "no number")]}
    with pytest.raises(RefusedDocumentsError) as caught:
        index.add(DOCUMENTS, IDS)
    assert caught.value.reasons == {
        "b": "429 mapper_parsing_exception: queue full, 4 times",
        "c": "400 mapper_parsing_exception: no number",
    }


def test_row_70_refused_documents_are_named_also_if_the_server_then_fails(
    index: RestIndex, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.item_errors = {"a": [(400, "no number")]}
    original = engine.answer
    monkeypatch.setattr(
        engine, "answer", lambda request: Scripted(507) if b'"_id": "c"' in request.body else original(request)
    )
    with pytest.raises(RefusedDocumentsError, match="answered 507.*of the 2 documents sent before, 1 were") as caught:
        index.add(DOCUMENTS, IDS, batch_bytes=1)
    assert caught.value.reasons == {"a": "400 mapper_parsing_exception: no number"}
    assert list(engine.documents["passages"]) == ["b"]
    monkeypatch.undo()
    index.add(DOCUMENTS, IDS)
    assert sorted(engine.documents["passages"]) == IDS


# Version


@pytest.mark.parametrize(
    ("distribution", "version", "message"),
    [
        ("elasticsearch", "7.17.9", "Elasticsearch 8.19 or a later 8, or 9.1 or later is needed, got elasticsearch 7"),
        ("elasticsearch", "8.18.8", "got elasticsearch 8.18.8"),
        ("elasticsearch", "9.0.4", "got elasticsearch 9.0.4"),
        ("elasticsearch", "soon", "got elasticsearch soon"),
        ("opensearch", "2.13.0", "OpenSearch 2.14 or later is needed, got opensearch 2.13.0"),
        ("opensearch", "1.3.20", "got opensearch 1.3.20"),
    ],
)
def test_row_70_an_old_server_is_refused(distribution: str, version: str, message: str) -> None:
    with running_engine(distribution, version) as engine, INDEXES[distribution](engine.url, "passages") as index:
        for call in (index.create, lambda: index.add(DOCUMENTS, IDS), lambda: index.search(QUERIES)):
            with pytest.raises(BackendError, match=message):
                call()
        assert engine.paths() == ["GET /"] * 3


@pytest.mark.parametrize(
    ("distribution", "version"),
    [("elasticsearch", "8.19.0"), ("elasticsearch", "9.1.0-SNAPSHOT"), ("elasticsearch", "10.0.0")]
    + [("opensearch", "2.14.0"), ("opensearch", "3.0.0-beta1")],
)
def test_row_70_a_server_that_is_new_enough_is_taken(distribution: str, version: str) -> None:
    with running_engine(distribution, version) as engine, INDEXES[distribution](engine.url, "passages") as index:
        index.create()
        assert list(engine.mappings) == ["passages"]


def test_row_70_the_other_engine_is_refused(engine: FakeEngine) -> None:
    (other,) = INDEXES.keys() - {engine.distribution}
    message = f"is needed, got {engine.distribution}"
    with INDEXES[other](engine.url, "passages") as index, pytest.raises(BackendError, match=message):
        index.create()


# Mapping


@pytest.mark.parametrize(
    ("distribution", "properties", "message"),
    [
        ("elasticsearch", {}, "field 'embedding': passages cannot hold term weights: it is not there"),
        (
            "elasticsearch",
            {"embedding": {"type": "rank_features"}},
            "type must be 'sparse_vector', got 'rank_features'",
        ),
        ("elasticsearch", {"embedding": {"type": "sparse_vector"}}, "index_options must be .*'prune': False.*got None"),
        ("elasticsearch", {"embedding": {"properties": {"t1": {"type": "float"}}}}, "type must be .*got None"),
        ("opensearch", {"embedding": {"type": "knn_vector"}}, "type must be 'rank_features', got 'knn_vector'"),
        (
            "opensearch",
            {"embedding": {"type": "rank_features", "positive_score_impact": False}},
            "positive_score_impact must not be False",
        ),
    ],
)
def test_row_70_another_mapping_is_refused_and_nothing_written(
    distribution: str, properties: dict[str, object], message: str
) -> None:
    with running_engine(distribution) as engine, INDEXES[distribution](engine.url, "passages") as index:
        engine.mappings["passages"] = {"properties": properties}
        engine.documents["passages"] = {}
        for call in (index.create, lambda: index.add(DOCUMENTS, IDS)):
            with pytest.raises(BackendError, match=message):
                call()
        assert engine.documents["passages"] == {}
        assert {path.partition(" ")[0] for path in engine.paths()} == {"GET"}


def test_row_70_an_index_that_is_not_there_is_not_made_up(engine: FakeEngine) -> None:
    with INDEXES[engine.distribution](engine.url, "passages") as index:
        with pytest.raises(BackendError, match=r"there is no index 'passages'\. Call create"):
            index.add(DOCUMENTS, IDS)
        assert engine.mappings == {}
        with pytest.raises(BackendError, match="answered 404: index_not_found_exception"):
            index.search(QUERIES)


# Answers that are none


def test_row_70_an_answer_cut_short_is_asked_for_again(index: RestIndex, engine: FakeEngine, pauses: Pauses) -> None:
    index.add(DOCUMENTS, IDS)
    engine.scripted = [Scripted(body=b'{"timed_out": fal', missing_bytes=40)]
    assert_all_is_there(index, engine)
    assert len(pauses) == 1
    engine.scripted = [Scripted(body=b"{}", missing_bytes=40)] * 4
    with pytest.raises(BackendError, match="IncompleteRead.*tried 4 times"):
        index.search(QUERIES)


@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b"", b"[]", b"\xff", b"[" * 100_000])
def test_row_70_an_answer_that_is_no_json_is_an_error(index: RestIndex, engine: FakeEngine, body: bytes) -> None:
    engine.scripted = [Scripted(body=body)]
    with pytest.raises(BackendError, match=rf"answered 200 with {len(body)} bytes that are no JSON object"):
        index.search(QUERIES)


SEARCH = {"timed_out": False, "_shards": {"failed": 0}, "hits": {"hits": []}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timed_out": True}, "only a part of the index was searched"),
        ({"_shards": {"failed": 1}}, "only a part of the index was searched"),
        ({"hits": {}}, "no answer to a search"),
        ({"hits": {"hits": [{"_id": "a", "_score": None}]}}, "no answer to a search"),
        ({"hits": {"hits": [{"_id": "a", "_score": float("nan")}]}}, "no answer to a search"),
        ({"hits": {"hits": [{"_id": "a", "_score": 1.0}] * 3}}, "no answer to a search for 2"),
    ],
)
def test_row_70_half_an_answer_to_a_search_is_an_error(
    index: RestIndex, engine: FakeEngine, changes: dict[str, object], message: str
) -> None:
    engine.scripted = [Scripted(body=json.dumps({**SEARCH, **changes}).encode())]
    with pytest.raises(BackendError, match=message):
        index.search(QUERIES, 2)


@pytest.mark.parametrize("items", [None, [], [{"index": {"_id": "x", "status": 201}}] * 6, [{"create": {}}] * 6])
def test_row_70_a_bulk_answer_that_forgets_documents_is_an_error(
    index: RestIndex, engine: FakeEngine, items: object
) -> None:
    mapping = Scripted(body=json.dumps({"passages": {"mappings": engine.mappings["passages"]}}).encode())
    engine.scripted = [mapping, Scripted(body=json.dumps({"errors": False, "items": items}).encode())]
    with pytest.raises(BackendError, match="does not say what became of 6 documents"):
        index.add(DOCUMENTS, IDS)


# What must never be sent


def weights_of(*values: float, dtype: type = np.float32) -> sparse.csr_array:
    made = sparse.csr_array((1, DIM), dtype=dtype)
    made.indptr, made.indices = np.array([0, len(values)]), np.arange(len(values), dtype=np.int32)
    made.data = np.array(values, dtype=dtype)
    return made


def stored_zero() -> SparseEmbeddings:
    crow, col = torch.tensor([0, 2]), torch.tensor([1, 4], dtype=torch.int32)
    return SparseEmbeddings(crow, col, torch.tensor([1.0, 0.0]), (1, DIM))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (weights_of(1, float("nan")), "finite"),
        (weights_of(1, float("inf")), "finite"),
        (weights_of(1, -1), "not negative, .* 0 has -1.0 for term 1"),
        (stored_zero(), "at least 1.175e-38, .* 0 has 0.0 for term 4"),
        (weights_of(1, 1e-40), "at least 1.175e-38, .* 0 has .*e-41 for term 1"),
        (weights_of(1, 1e-300, dtype=np.float64), "at least 1.175e-38, .* 0 has 1e-300 for term 1"),
    ],
)
def test_row_70_weights_that_engines_refuse_are_refused_before(
    index: RestIndex, engine: FakeEngine, bad: SparseEmbeddings | sparse.csr_array, message: str
) -> None:
    before = len(engine.requests)
    with pytest.raises(ValueError, match=message):
        index.add(bad, ["a"])
    with pytest.raises(ValueError, match=message):
        index.search(bad)
    assert len(engine.requests) == before


def test_row_70_query_weights_have_a_limit(index: RestIndex, engine: FakeEngine) -> None:
    assert index.search(weights_of(64)) == [[]]
    before = len(engine.requests)
    with pytest.raises(ValueError, match="weights must be at most 64, query 0 has 64.5 for term 1"):
        index.search(weights_of(1, 64.5))
    assert len(engine.requests) == before


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a"], "one id for each of the 6 documents, got 1"),
        (["a", "b", "c", "d", "e", "a"], "unique, 'a' is there 2 times"),
        (["", "b", "c", "d", "e", "f"], "1 to 512 bytes, document 0 has 0"),
        (["é" * 257, "b", "c", "d", "e", "f"], "1 to 512 bytes, document 0 has 514"),
        (["\ud800", "b", "c", "d", "e", "f"], "surrogates not allowed"),
    ],
)
def test_row_70_ids_that_engines_refuse_are_refused_before(
    index: RestIndex, engine: FakeEngine, ids: list[str], message: str
) -> None:
    before = len(engine.requests)
    with pytest.raises(ValueError, match=message):
        index.add(DOCUMENTS, ids)
    with pytest.raises(TypeError, match="ids must be texts, document 0 has 0"):
        index.add(DOCUMENTS, [0, *IDS[1:]])  # type: ignore[list-item]
    assert len(engine.requests) == before


@pytest.mark.parametrize("name", ["", "Docs", "a/b", "../_all", "_all", "a,b", "*", "a?b", "-a", "a" * 201])
def test_row_70_names_that_reach_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="an index is named by"):
        ElasticsearchIndex("http://127.0.0.1:9", name)


@pytest.mark.parametrize("field", ["", "_id", "a.b", "a b", "1"])
def test_row_70_fields_that_mean_something_else_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match="a field is named by"):
        ElasticsearchIndex("http://127.0.0.1:9", "passages", field=field)


# Credentials


@pytest.mark.parametrize(
    "url",
    ["http://me:secret@host", "ftp://secret", "host/secret", "http://h?x=secret", "http://h:secret", "http://h /s"],
)
def test_row_70_addresses_are_checked_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="the address must be http") as caught:
        ElasticsearchIndex(url, "passages")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "access", [Access(api_key="secret-key"), Access(basic_auth=("me", "secret-key")), Access(basic_auth=("me", "ä:b"))]
)
def test_row_70_credentials_are_in_no_error(access: Access) -> None:
    sent = access.headers()["Authorization"]
    repeated = f"bad header {sent}, secret-key or ä:b"
    answer = json.dumps({"error": {"type": "denied", "reason": repeated}}, ensure_ascii=False).encode()
    with running_engine() as engine, ElasticsearchIndex(engine.url, "passages", access=access) as index:
        index.create()
        engine.scripted = [Scripted(401, answer)]
        with pytest.raises(BackendError) as refused:
            index.search(QUERIES)
        engine.item_errors = {"a": [(400, repeated)]}
        with pytest.raises(RefusedDocumentsError) as items:
            index.add(DOCUMENTS, IDS)
    secret = sent.partition(" ")[2]
    texts = [str(refused.value), str(items.value), str(items.value.reasons), repr(access)]
    assert all(secret not in text for text in texts)
    assert all(hidden is None or hidden[1] not in text for hidden in [access.basic_auth] for text in texts)
    assert "***" in texts[0]


def test_row_70_access_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        Access(api_key="x", basic_auth=("a", "b"))
    with pytest.raises(ValueError, match="visible ASCII") as caught:
        Access(api_key="secret\nX-Other: 1")
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match="no colon"):
        Access(basic_auth=("a:b", "c"))
    with pytest.raises(ValueError, match="timeout_seconds must be positive, got 0"):
        Access(timeout_seconds=0)
