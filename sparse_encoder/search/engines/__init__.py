"""Search engines that take over from :class:`SparseIndex` past one machine: Elasticsearch and OpenSearch."""

from __future__ import annotations

from sparse_encoder.search.engines.access import Access
from sparse_encoder.search.engines.bulk import RefusedDocumentsError
from sparse_encoder.search.engines.rest_index import ElasticsearchIndex, OpenSearchIndex, RestIndex
from sparse_encoder.search.engines.retry import Retry

__all__ = ["Access", "ElasticsearchIndex", "OpenSearchIndex", "RefusedDocumentsError", "RestIndex", "Retry"]
