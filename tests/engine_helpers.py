"""A server with the part of Elasticsearch's and OpenSearch's protocol that we use; it scores by dot products."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any, NamedTuple

import numpy as np

from sparse_encoder.search.engines import ElasticsearchIndex, OpenSearchIndex, RestIndex, Retry


class Scripted(NamedTuple):
    """An answer that the server gives instead of its own."""

    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    missing_bytes: int = 0
    """Announced and not sent."""


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class FakeEngine:
    """State and behaviour of the server; what a real one does to our requests and nothing more."""

    def __init__(self, distribution: str, version: str, bits: int | None) -> None:
        self.distribution = distribution
        self.version = version
        self.bits = bits
        self.mappings: dict[str, dict[str, Any]] = {}
        self.documents: dict[str, dict[str, dict[str, Any]]] = {}
        self.requests: list[Request] = []
        self.scripted: list[Scripted] = []
        self.item_errors: dict[str, list[tuple[int, str]]] = {}
        """Status and reason for the next times that a document is sent."""
        self.url = ""

    def paths(self) -> list[str]:
        return [f"{request.method} {request.path.partition('?')[0]}" for request in self.requests]

    def answer(self, request: Request) -> Scripted:
        self.requests.append(request)
        if self.scripted:
            return self.scripted.pop(0)
        status, value = self._route(request)
        return Scripted(status, json.dumps(value).encode())

    def _route(self, request: Request) -> tuple[int, dict[str, Any]]:
        path, _, parameters = request.path.partition("?")
        _, index, action = f"{path}/".split("/", 2)
        if not index:
            version = {"number": self.version}
            if self.distribution == "opensearch":
                version["distribution"] = "opensearch"
            return 200, {"version": version, "tagline": "for tests"}
        if request.method == "PUT":
            if index in self.mappings:
                return error(400, "resource_already_exists_exception", f"index [{index}] already exists")
            self.mappings[index], self.documents[index] = json.loads(request.body)["mappings"], {}
            return 200, {"acknowledged": True}
        if action == "_bulk/":
            return self._bulk(index, request)
        if index not in self.mappings:
            return error(404, "index_not_found_exception", f"no such index [{index}]")
        if action == "_mapping/":
            return 200, {index: {"mappings": self.mappings[index]}}
        if action == "_search/":
            return self._search(index, json.loads(request.body), parameters)
        assert action == "_refresh/"
        return 200, {"_shards": {"failed": 0}}

    def _bulk(self, index: str, request: Request) -> tuple[int, dict[str, Any]]:
        assert request.headers["Content-Type"] == "application/x-ndjson"
        assert request.body.endswith(b"\n")
        self.mappings.setdefault(index, {"properties": {}})  # as a real engine makes up what is not there
        lines = [json.loads(line) for line in request.body.splitlines()]
        items = []
        for action, source in zip(lines[::2], lines[1::2], strict=True):
            name = action["index"]["_id"]
            status, failure = 201, {}
            if self.item_errors.get(name):
                status, reason = self.item_errors[name].pop(0)
                failure = {"error": {"type": "mapper_parsing_exception", "reason": reason}}
            else:
                self.documents.setdefault(index, {})[name] = source
            items.append({"index": {"_id": name, "status": status, **failure}})
        return 200, {"errors": any("error" in item["index"] for item in items), "items": items}

    def _search(self, index: str, body: dict[str, Any], parameters: str) -> tuple[int, dict[str, Any]]:
        (kind, query), *rest = body["query"].items()
        assert not rest
        properties = self.mappings[index]["properties"]
        if self.distribution == "opensearch":
            assert kind == "neural_sparse"
            ((field, how),) = query.items()
            tokens, wanted, prune = how["query_tokens"], "rank_features", "search_pipeline=_none" not in parameters
        else:
            assert kind == "sparse_vector"
            field, tokens, wanted = query["field"], query["query_vector"], "sparse_vector"
            prune = query.get("prune", properties[field].get("index_options", {}).get("prune", True))
        if properties[field]["type"] != wanted:
            return error(400, "query_shard_exception", f"[{field}] is not [{wanted}]")
        if prune:
            tokens = {token: weight for token, weight in tokens.items() if weight > 0.4 * max(tokens.values())}
        scores = {name: self._score(tokens, source.get(field, {})) for name, source in self.documents[index].items()}
        found = sorted((name for name in scores if scores[name] > 0), key=lambda name: -scores[name])[: body["size"]]
        hits = [{"_index": index, "_id": name, "_score": scores[name]} for name in found]
        return 200, {"timed_out": False, "_shards": {"total": 1, "failed": 0}, "hits": {"hits": hits}}

    def _score(self, query: dict[str, float], document: dict[str, float]) -> float:
        """Add float32 products in the order of the terms, as SparseIndex does."""
        total = np.float32(0)
        for token in sorted(query.keys() & document.keys(), key=lambda token: int(token.removeprefix("t"))):
            total += np.float32(query[token]) * self._kept(document[token])
        return float(total)

    def _kept(self, weight: float) -> np.float32:
        kept = np.float32(weight)
        if self.bits is None:
            return kept
        dropped = 24 - self.bits
        return (kept.view(np.uint32) >> dropped << dropped).view(np.float32)


def error(status: int, kind: str, reason: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"type": kind, "reason": reason}, "status": status}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    engine: FakeEngine

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.engine.answer(Request(self.command, self.path, dict(self.headers.items()), body))
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body) + answer.missing_bytes))
        self.end_headers()
        self.wfile.write(answer.body)
        self.close_connection = answer.missing_bytes > 0

    do_GET = do_POST = do_PUT = _serve

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def running_engine(
    distribution: str = "elasticsearch", version: str | None = None, *, bits: int | None = None
) -> Iterator[FakeEngine]:
    """Run a server on a free port until the block ends."""
    newest = {"elasticsearch": "9.1.3", "opensearch": "3.3.0"}
    engine = FakeEngine(distribution, version or newest[distribution], bits)
    handler = type("BoundHandler", (Handler,), {"engine": engine})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        engine.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        try:
            yield engine
        finally:
            server.shutdown()
            thread.join()


INDEXES: dict[str, type[RestIndex]] = {"elasticsearch": ElasticsearchIndex, "opensearch": OpenSearchIndex}


class Pauses(list[float]):
    """Take note of pauses instead of making them."""

    def retry(self, max_tries: int = 4, *, max_delay_seconds: float = 60.0, now: float = 0.0) -> Retry:
        return Retry(
            max_tries=max_tries,
            first_delay_seconds=1.0,
            max_delay_seconds=max_delay_seconds,
            sleep=self.append,
            clock=lambda: now,
            random=Random(3),
        )
