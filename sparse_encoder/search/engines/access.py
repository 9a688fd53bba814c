"""Who asks a server, and how it is reached. Knows the credentials, and keeps them out of every text."""

from __future__ import annotations

import base64
import re
import ssl
from dataclasses import dataclass, field

_KEY = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """Say how to reach a server.

    Raises:
        ValueError: If there are two kinds of credentials, the key cannot be sent, or the time is not positive.
    """

    basic_auth: tuple[str, str] | None = field(default=None, repr=False)
    """User name and password."""
    api_key: str | None = field(default=None, repr=False)
    """The encoded key, as Elasticsearch hands it out."""
    ssl_context: ssl.SSLContext | None = None
    """For a server with its own certificate authority; ``None`` trusts what the system trusts."""
    timeout_seconds: float = 60.0
    """How long to wait for a connection, and then for each piece of an answer."""

    def __post_init__(self) -> None:
        """Check the values, without naming them."""
        if self.basic_auth is not None and self.api_key is not None:
            raise ValueError("give basic_auth or api_key, not both")
        if self.api_key is not None and not _KEY.fullmatch(self.api_key):
            raise ValueError("api_key must be visible ASCII characters, without spaces and line ends")
        if self.basic_auth is not None and ":" in self.basic_auth[0]:
            raise ValueError("the user name of basic_auth must have no colon")
        if not self.timeout_seconds > 0:
            raise ValueError(f"timeout_seconds must be positive, got {self.timeout_seconds}")

    def headers(self) -> dict[str, str]:
        """Return the header that carries the credentials, if there are any."""
        if self.api_key is not None:
            return {"Authorization": f"ApiKey {self.api_key}"}
        if self.basic_auth is not None:
            return {"Authorization": f"Basic {self._encoded()}"}
        return {}

    def hide(self, text: str) -> str:
        """Return a text with the credentials blotted out, should a server have repeated them."""
        secrets = [] if self.api_key is None else [self.api_key]
        if self.basic_auth is not None:
            secrets += [self._encoded(), self.basic_auth[1]]
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        return text

    def _encoded(self) -> str:
        return base64.b64encode(":".join(self.basic_auth or ()).encode()).decode("ascii")
