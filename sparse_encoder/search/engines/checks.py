"""What a server must be, and an index on it, before anything is written. Knows no documents."""

from __future__ import annotations

import re

from sparse_encoder.checkpoint import BackendError
from sparse_encoder.search.engines.engine import Engine
from sparse_encoder.search.engines.rest import RestClient, reason_of


def check_server(client: RestClient, engine: Engine) -> None:
    """Refuse another engine and versions that lack something."""
    version = client.ask("GET", "/").get("version")
    version = version if isinstance(version, dict) else {}
    number, distribution = str(version.get("number")), version.get("distribution", "elasticsearch")
    found = re.match(r"(\d+)\.(\d+)", number)
    if distribution != engine.distribution or not found or not engine.can(*map(int, found.groups())):
        raise client.error("GET", "/", f"{engine.needed} is needed, got {distribution} {number}")


def check_mapping(client: RestClient, engine: Engine, *, index: str, field: str) -> None:
    """Refuse an index that is not there, as a bulk request would make a wrong one, or has another field."""
    path = f"/{index}/_mapping"
    answer = client.send("GET", path)
    if answer.status == 404:
        raise client.error("GET", path, f"there is no index {index!r}", hint="Call create() first")
    if answer.status >= 300 or not answer.value:
        raise client.error("GET", path, f"answered {answer.status}: {reason_of(answer.value)}")
    for name, described in answer.value.items():  # several, if the name is an alias
        try:
            found = described["mappings"].get("properties", {}).get(field)
        except (KeyError, TypeError, AttributeError):
            raise client.error("GET", path, "this is no mapping") from None
        wrong = "it is not there" if not isinstance(found, dict) else engine.misfit(found)
        if wrong is not None:
            raise BackendError(
                f"{name} cannot hold term weights: {wrong}",
                field=field,
                hint="Nothing was written; use another index or field",
            )
