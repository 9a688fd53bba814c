"""What tells the engines apart that share the bulk interface, as data. Knows no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """Describe one engine."""

    name: str
    distribution: str
    """What it calls itself under ``version.distribution``; Elasticsearch is silent."""
    versions: Mapping[int, int]
    """The first minor version that has all that is used here, by major version; later majors have it too."""
    key_prefix: str
    """Goes before the number of a term."""
    mapping: Mapping[str, Any]
    """Settings of the field."""
    wrong_mapping: Mapping[str, Any] = field(default_factory=dict)
    """Settings that would make another field of the same type."""
    query: Callable[[str, Mapping[str, float]], dict[str, Any]]
    """Makes the query out of the field's name and the weights by key."""
    search_parameters: str
    """Of the address of a search."""

    def can(self, major: int, minor: int) -> bool:
        """Tell whether a version has all that is used here."""
        return major > max(self.versions) or minor >= self.versions.get(major, minor + 1)

    @property
    def needed(self) -> str:
        """The versions that will do, in words."""
        *others, last = (f"{major}.{minor}" for major, minor in sorted(self.versions.items()))
        first = "".join(f"{other} or a later {other.partition('.')[0]}, or " for other in others)
        return f"{self.name} {first}{last} or later"

    def misfit(self, found: Mapping[str, Any]) -> str | None:
        """Say what is wrong with the settings of a field that is there already."""
        for name, value in self.mapping.items():
            if found.get(name) != value:
                return f"{name} must be {value!r}, got {found.get(name)!r}"
        for name, value in self.wrong_mapping.items():
            if found.get(name) == value:
                return f"{name} must not be {value!r}"
        return None


ELASTICSEARCH = Engine(
    name="Elasticsearch",
    distribution="elasticsearch",
    versions={8: 19, 9: 1},  # the first that can switch pruning off in the mapping
    key_prefix="t",
    mapping={"type": "sparse_vector", "index_options": {"prune": False}},
    query=lambda name, weights: {"sparse_vector": {"field": name, "query_vector": weights, "prune": False}},
    search_parameters="allow_partial_search_results=false",
)

OPENSEARCH = Engine(
    name="OpenSearch",
    distribution="opensearch",
    versions={2: 14},  # the first with raw query_tokens, opensearch-project/neural-search#608
    key_prefix="",  # as its field for approximate search wants them
    mapping={"type": "rank_features"},
    wrong_mapping={"positive_score_impact": False},
    query=lambda name, weights: {"neural_sparse": {name: {"query_tokens": weights}}},
    search_parameters="allow_partial_search_results=false&search_pipeline=_none",  # no two-phase search: it prunes
)
