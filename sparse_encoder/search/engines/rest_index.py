"""RestIndex: documents in a search engine, put there and searched over REST. Knows no texts and no model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from sparse_encoder.checkpoint import BackendError
from sparse_encoder.search.engines.access import Access
from sparse_encoder.search.engines.bulk import RefusedDocumentsError, put
from sparse_encoder.search.engines.checks import check_mapping, check_server
from sparse_encoder.search.engines.documents import (
    LARGEST_QUERY_WEIGHT,
    batches,
    check_ids,
    checked_rows,
    weights_by_key,
)
from sparse_encoder.search.engines.engine import ELASTICSEARCH, OPENSEARCH, Engine
from sparse_encoder.search.engines.rest import RestClient, reason_of
from sparse_encoder.search.engines.retry import Retry
from sparse_encoder.search.index import Hit
from sparse_encoder.similarity import Embeddings

if TYPE_CHECKING:
    from typing_extensions import Self

_INDEX = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")
_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class RestIndex:
    """Keep documents in a search engine and find those with the largest dot products.

    Nothing is pruned or saturated, on either side: every document that shares a term with the query takes part, and
    the score is the sum of products. Yet it is not quite that of :class:`SparseIndex`: these engines keep **9
    significant bits** of a document's weight and cut the rest off, so that a weight, and with it a score, comes out
    lower by less than 1/256 (0.39 %) of itself, and documents whose scores are nearer than that may change places. The
    weights of queries are kept in full. Which of equal scores comes first is up to the engine.

    Requests are repeated as :class:`Retry` says, and documents are stored under their id: a call that failed half-way
    may be made again, and nothing is there twice. The first request asks for the version of the server.

    Args:
        url: ``http(s)://host[:port][/prefix]``, without credentials.
        index: Name of the index there.
        field: Name of the field with the weights.
        access: Credentials, certificates and the time to wait.
        retry: How often and how late to try again.

    Raises:
        ValueError: If the address or a name cannot be used.
    """

    engine: ClassVar[Engine]

    def __init__(
        self,
        url: str,
        index: str,
        *,
        field: str = "embedding",
        access: Access | None = None,
        retry: Retry | None = None,
    ) -> None:
        if not _INDEX.fullmatch(index):
            raise ValueError(f"an index is named by small letters, digits and '.', '_', '-', got {index!r}")
        if not _FIELD.fullmatch(field):
            raise ValueError(f"a field is named by letters, digits and '_', got {field!r}")
        self.index = index
        self.field = field
        self._client = RestClient(url, access=access or Access(), retry=retry or Retry())
        self._server_checked = False

    def __enter__(self) -> Self:
        """Return the index; leaving the block closes the connection."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection; the documents stay, and the next call opens it again."""
        self._client.close()

    def create(self) -> None:
        """Make the index, if it is not there; one that is there must have the right field.

        Raises:
            BackendError: If the server cannot be reached, is too old or refuses, or the field is another one.
        """
        self._check_server()
        if self._client.send("GET", f"/{self.index}/_mapping").status == 404:
            mappings = {"properties": {self.field: self.engine.mapping}}
            body = json.dumps({"mappings": mappings}).encode()
            answer = self._client.send("PUT", f"/{self.index}", body=body)
            reason = reason_of(answer.value)
            if answer.status >= 300 and "already_exists" not in reason:  # it may, if an answer was lost on the way
                raise self._client.error("PUT", f"/{self.index}", f"answered {answer.status}: {reason}")
        check_mapping(self._client, self.engine, index=self.index, field=self.field)

    def add(self, embeddings: Embeddings, ids: Sequence[str], *, batch_bytes: int = 5_000_000) -> None:
        """Put documents into the index; one whose id is there already is replaced.

        All weights are checked, and the field of the index is, before the first document is sent. When the call
        returns, the documents can be found.

        Args:
            embeddings: Term weights, (N, V).
            ids: One different text for each document, of at most 512 bytes.
            batch_bytes: Size of a request; a document that is larger goes alone.

        Raises:
            TypeError: If an id is no text.
            ValueError: If an id cannot be used, or a weight is NaN, infinite, negative, zero or below float32's normal
                numbers.
            BackendError: If the server cannot be reached, is too old or stays busy, or the index is not there or has
                another field.
            RefusedDocumentsError: If the engine refused single documents, after the rest went through.
        """
        if batch_bytes < 1:
            raise ValueError(f"batch_bytes must be at least 1, got {batch_bytes}")
        rows, names = checked_rows(embeddings, "document"), list(ids)
        check_ids(names, len(rows))
        self._check_server()
        check_mapping(self._client, self.engine, index=self.index, field=self.field)
        done, refused = 0, dict[str, str]()
        prefix = self.engine.key_prefix
        for batch in batches(rows, names, field=self.field, prefix=prefix, max_bytes=batch_bytes):
            try:
                refused.update(put(self._client, f"/{self.index}/_bulk", batch))
            except BackendError as stop:
                if not refused:
                    raise
                message = f"{stop}; of the {done} documents sent before, {len(refused)} were refused"
                raise RefusedDocumentsError(message, refused) from None
            done += len(batch)
        self._client.ask("POST", f"/{self.index}/_refresh")
        if refused:
            raise RefusedDocumentsError(f"{self.index}: {len(refused)} of {done} documents were refused", refused)

    def search(self, queries: Embeddings, top_k: int = 10) -> list[list[Hit]]:
        """Find the best documents of every query.

        Args:
            queries: Term weights, (N, V), or (V,) for one query.
            top_k: Most hits of a query; the engine's ``index.max_result_window`` (10,000) is a limit.

        Returns:
            The hits of each query with the engine's scores, best first; none for a query without terms.

        Raises:
            ValueError: If ``top_k`` is negative, or a weight is NaN, infinite, negative, zero or greater than 64.
            BackendError: If the server cannot be reached, is too old or stays busy, refuses the query, or could not
                search the whole index.
        """
        if top_k < 0:
            raise ValueError(f"top_k must be at least 0, got {top_k}")
        rows = checked_rows(queries, "query", largest=LARGEST_QUERY_WEIGHT)
        self._check_server()
        asked = weights_by_key(rows, self.engine.key_prefix)
        return [self._search(weights, top_k) if weights and top_k else [] for weights in asked]

    def _search(self, weights: Mapping[str, float], top_k: int) -> list[Hit]:
        query = self.engine.query(self.field, weights)
        request = {"size": top_k, "_source": False, "track_total_hits": False, "query": query}
        path = f"/{self.index}/_search?{self.engine.search_parameters}"
        answer = self._client.ask("POST", path, body=json.dumps(request).encode())
        try:
            if answer["timed_out"] or answer["_shards"]["failed"]:
                raise self._client.error("POST", path, "only a part of the index was searched")
            hits = [Hit(str(hit["_id"]), float(hit["_score"])) for hit in answer["hits"]["hits"]]
        except (KeyError, TypeError, ValueError):
            raise self._client.error("POST", path, "this is no answer to a search") from None
        if len(hits) > top_k or not all(math.isfinite(hit.score) for hit in hits):
            raise self._client.error("POST", path, f"this is no answer to a search for {top_k} documents")
        return hits

    def _check_server(self) -> None:
        """Look at the server's version, once."""
        if not self._server_checked:
            check_server(self._client, self.engine)
            self._server_checked = True


class ElasticsearchIndex(RestIndex):
    """A ``sparse_vector`` field of Elasticsearch 8.19, 9.1 or later, without token pruning; see :class:`RestIndex`."""

    engine = ELASTICSEARCH


class OpenSearchIndex(RestIndex):
    """A ``rank_features`` field of OpenSearch 2.14 or later, asked by ``neural_sparse``; see :class:`RestIndex`."""

    engine = OPENSEARCH
