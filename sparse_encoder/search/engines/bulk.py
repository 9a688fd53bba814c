"""Bulk requests: documents sent together, each with a fate of its own. Knows no rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sparse_encoder.checkpoint import BackendError
from sparse_encoder.search.engines.documents import Document
from sparse_encoder.search.engines.rest import LINES, RestClient, reason_of
from sparse_encoder.search.engines.retry import BUSY

NAMED = 10
"""Refused documents that an error's text names; its ``reasons`` hold all."""


class RefusedDocumentsError(BackendError):
    """An engine refused documents; the others of the call are in it.

    Args:
        message: What happened.
        reasons: The engine's reason for each id.
    """

    def __init__(self, message: str, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        named = "; ".join(f"{name!r}: {reason}" for name, reason in list(self.reasons.items())[:NAMED])
        more = f"; and {len(self.reasons) - NAMED} more" if len(self.reasons) > NAMED else ""
        super().__init__(f"{message}: {named}{more}", hint="Documents that went through may be added again")


def put(client: RestClient, path: str, batch: Sequence[Document]) -> Iterator[tuple[str, str]]:
    """Send documents, and those again that the engine was too busy for.

    Args:
        client: Of the engine.
        path: Of the bulk interface.
        batch: What to send.

    Yields:
        Id and reason of each document that the engine refused, as soon as that is known.

    Raises:
        BackendError: If the server cannot be reached or stays busy.
    """
    waiting, tries = list(batch), 0
    while waiting:
        tries += 1
        busy: list[tuple[Document, str]] = []
        for document, result in zip(waiting, _bulk(client, path, waiting), strict=True):
            reason = client.access.hide(f"{result['status']} {reason_of(result)}")
            if result["status"] in BUSY:
                busy.append((document, reason))
            elif result["status"] >= 300:
                yield document.id, reason
        if busy and not client.retry.wait(tries):
            yield from ((document.id, f"{reason}, {tries} times") for document, reason in busy)
            return
        waiting = [document for document, _ in busy]


def _bulk(client: RestClient, path: str, batch: Sequence[Document]) -> list[dict[str, Any]]:
    """Return what became of each document, as ``{"_id", "status", "error"}``."""
    body = b"".join(document.lines for document in batch)
    answer = client.ask("POST", path, body=body, content_type=LINES)
    try:
        results: list[dict[str, Any]] = [item["index"] for item in answer["items"]]
        said = [(str(result["_id"]), type(result["status"])) for result in results]
    except (KeyError, TypeError):
        said = []
    if said != [(document.id, int) for document in batch]:
        raise client.error("POST", path, f"the answer does not say what became of {len(batch)} documents")
    return results
