"""Settings that may be given as JSON, as on a command line."""

from __future__ import annotations

import json
from typing import Any


def read_mapping(name: str, value: dict[str, Any] | str | None) -> dict[str, Any]:  # values as the field says
    """Return a mapping from itself, from JSON, or from nothing."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as reason:
            raise ValueError(f"{name} must be a dict or a JSON object, got {value!r}") from reason
    if not isinstance(value, dict | None):
        raise ValueError(f"{name} must be a dict or a JSON object, got {value!r}")
    return {} if value is None else dict(value)
