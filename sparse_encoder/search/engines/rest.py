"""Ask a server for JSON over HTTP, again where that may help. Knows no search engine."""

from __future__ import annotations

import json
import re
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection, IncompleteRead
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sparse_encoder.checkpoint import BackendError
from sparse_encoder.search.engines.access import Access
from sparse_encoder.search.engines.retry import BUSY, Retry

MAX_RESPONSE_BYTES = 256_000_000
"""No answer to what is asked here comes near it."""
MAX_REASON = 500
"""Characters of a server's explanation that are passed on."""

JSON = "application/json"
LINES = "application/x-ndjson"

_ADDRESS = re.compile(r"https?://([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?(/[\w./~-]*)?", re.ASCII)


class Answer(NamedTuple):
    """What a server said.

    Attributes:
        status: HTTP status.
        value: The JSON object; empty if the status is an error's and the body is none.
    """

    status: int
    value: dict[str, Any]  # Any: whatever JSON holds


class _Response(NamedTuple):
    status: int
    retry_after: str | None
    body: bytes


class RestClient:
    """Send requests that may be repeated without harm, over one connection, for one thread at a time.

    Refused, broken and timed-out connections, answers that are cut short and the statuses 429, 502, 503 and 504 are
    tried again as :class:`Retry` says. Redirects are not followed, proxies are not used, certificates are checked.

    Args:
        url: ``http(s)://host[:port][/prefix]``; credentials do not belong there.
        access: Credentials and the like.
        retry: How often and how late to try again.

    Raises:
        ValueError: If the address is something else.
    """

    def __init__(self, url: str, *, access: Access, retry: Retry) -> None:
        if not _ADDRESS.fullmatch(url):  # not shown: what is wrong with it may be the password in it
            raise ValueError("the address must be http(s)://host[:port][/prefix]; credentials go into Access(...)")
        parts = urlsplit(url)
        host = str(parts.hostname)
        self.url = url.rstrip("/")
        self.access = access
        self.retry = retry
        self._prefix = parts.path.rstrip("/")
        self._connection: HTTPConnection
        if parts.scheme == "http":
            self._connection = HTTPConnection(host, parts.port, timeout=access.timeout_seconds)
        else:
            context = ssl.create_default_context() if access.ssl_context is None else access.ssl_context
            self._connection = HTTPSConnection(host, parts.port, timeout=access.timeout_seconds, context=context)

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        self._connection.close()

    def ask(self, method: str, path: str, *, body: bytes | None = None, content_type: str = JSON) -> dict[str, Any]:
        """Do the same as :meth:`send`, for requests that have to succeed.

        Returns:
            The JSON object.

        Raises:
            BackendError: Also if the status is not a success.
        """
        answer = self.send(method, path, body=body, content_type=content_type)
        if not 200 <= answer.status < 300:
            hint = "Check the credentials and what they allow" if answer.status in (401, 403) else None
            raise self.error(method, path, f"answered {answer.status}: {reason_of(answer.value)}", hint=hint)
        return answer.value

    def send(self, method: str, path: str, *, body: bytes | None = None, content_type: str = JSON) -> Answer:
        """Send a request, again and again if need be.

        Args:
            method: ``GET``, ``PUT``, ``POST``.
            path: Below the address, with a leading slash.
            body: What to send.
            content_type: Of the body.

        Raises:
            BackendError: If the server cannot be reached, is still busy after the last try, or does not answer in JSON.
        """
        tries = 0
        while True:
            tries += 1
            retry_after = None
            try:
                response = self._once(method, path, body, content_type)
                if response.status not in BUSY:
                    return self._answer(method, path, response)
                retry_after = response.retry_after
                failure = f"answered {response.status}: {reason_of(_parsed(response.body))}"
            except (ConnectionError, TimeoutError, HTTPException) as reason:
                failure = f"{type(reason).__name__}: {reason}"
            except OSError as reason:  # an unknown name, a certificate that is not trusted: no try would change it
                raise self.error(method, path, f"{type(reason).__name__}: {reason}") from None
            if not self.retry.wait(tries, retry_after):
                wish = "" if retry_after is None else f", which asks to wait {retry_after!r}"
                raise self.error(
                    method,
                    path,
                    f"{failure}{wish}; tried {tries} times",
                    hint="Is the engine up, and its load bearable?",
                )

    def _once(self, method: str, path: str, body: bytes | None, content_type: str) -> _Response:
        headers = {"Accept": JSON, **self.access.headers()}
        if body is not None:
            headers["Content-Type"] = content_type
        whole = False
        try:
            self._connection.request(method, self._prefix + path, body=body, headers=headers)
            response = self._connection.getresponse()
            content = response.read(MAX_RESPONSE_BYTES + 1)
            if len(content) > MAX_RESPONSE_BYTES:
                raise self.error(method, path, f"the answer is longer than {MAX_RESPONSE_BYTES} bytes")
            if response.length:  # bytes that were announced and did not come
                raise IncompleteRead(content, response.length)
            whole = True
            return _Response(response.status, response.getheader("Retry-After"), content)
        finally:
            if not whole:
                self._connection.close()  # whatever is left in it belongs to no later request

    def _answer(self, method: str, path: str, response: _Response) -> Answer:
        value = _parsed(response.body)
        if value is None and 200 <= response.status < 300:
            raise self.error(
                method,
                path,
                f"answered {response.status} with {len(response.body)} bytes that are no JSON object",
                hint="Is this the address of the engine itself?",
            )
        return Answer(response.status, value or {})

    def error(self, method: str, path: str, what: str, *, hint: str | None = None) -> BackendError:
        """Make an error that names the request and no credentials."""
        return BackendError(self.access.hide(f"{method} {self.url}{path}: {what}"), hint=hint)


def _parsed(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object, or ``None`` if it is something else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def reason_of(value: object) -> str:
    """Find the explanation in an error's JSON: ``{"error": {"type", "reason", "caused_by"}}`` or a part of it."""
    error = value.get("error", value) if isinstance(value, dict) else value
    parts: list[str] = []
    while isinstance(error, dict) and len(parts) < 3:
        parts += [f"{error.get('type', 'error')}: {error.get('reason')}"] if "reason" in error else []
        if "caused_by" not in error:
            break
        error = error["caused_by"]
    text = ", caused by ".join(parts) or (error if isinstance(error, str) else "")
    return text[:MAX_REASON] or "no reason given"
