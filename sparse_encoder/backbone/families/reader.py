"""Typed access to a foreign `config.json`: a value of the wrong type is an error that names its field."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparse_encoder.checkpoint.errors import ConfigError

DANGEROUS = ("auto_map", "trust_remote_code", "custom_pipelines", "quantization_config")
"""Keys that elsewhere load code or change what a file means; `_attn_implementation*` is the last of them."""


class ConfigReader:
    """Read values by name; a missing one is the default.

    Args:
        values: The config, as parsed.
        path: Where it came from, for errors.
    """

    def __init__(self, values: Mapping[str, Any], path: Path | None = None) -> None:  # Any: parsed JSON
        self.values = values
        self.path = path

    def has(self, name: str) -> bool:
        """Return whether a value is there and not null."""
        return self.values.get(name) is not None

    def integer(self, name: str, default: int) -> int:
        """Return an integer; a boolean is none."""
        value: int = self._typed(name, default, (int,), "an integer")
        return value

    def optional_integer(self, name: str, default: int | None) -> int | None:
        """Return an integer, or None if that is what is written."""
        if name in self.values and self.values[name] is None:
            return None
        return default if name not in self.values else self.integer(name, 0)

    def real(self, name: str, default: float) -> float:
        """Return a number; an integer counts."""
        return float(self._typed(name, default, (int, float), "a number"))

    def flag(self, name: str, default: bool) -> bool:
        """Return a boolean."""
        value: bool = self._typed(name, default, (bool,), "true or false")
        return value

    def text(self, name: str, default: str) -> str:
        """Return a string."""
        value: str = self._typed(name, default, (str,), "a string")
        return value

    def texts(self, name: str) -> tuple[str, ...] | None:
        """Return a list of strings, or None if there is none."""
        if not self.has(name):
            return None
        value = self.values[name]
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise self.error(name, f"must be a list of strings, got {value!r:.100}")
        return tuple(value)

    def section(self, name: str) -> ConfigReader:
        """Return a reader for an object inside; empty if it is missing."""
        value = self.values.get(name)
        if value is None:
            return ConfigReader({}, self.path)
        if not isinstance(value, Mapping):
            raise self.error(name, f"must be an object, got {value!r:.100}")
        return ConfigReader(value, self.path)

    def require(self, name: str, allowed: object, *, because: str) -> None:
        """Refuse a value other than the allowed one; a missing value or null is allowed."""
        if self.has(name) and self.values[name] != allowed:
            raise self.error(name, f"must be {allowed!r}, got {self.values[name]!r:.100}: {because}")

    def error(self, name: str, message: str) -> ConfigError:
        """Return an error about one value."""
        return ConfigError(message, path=self.path, field=name)

    def warn_of_dangerous_keys(self) -> None:
        """Say once which keys are not followed."""
        found = sorted(
            name
            for name in self.values
            if (name in DANGEROUS or name.startswith("_attn_implementation")) and self.values[name]
        )
        if found:
            warnings.warn(
                f"{self.path or 'the config'}: {', '.join(found)} are ignored; nothing is imported", stacklevel=2
            )

    def _typed(self, name: str, default: Any, types: tuple[type, ...], what: str) -> Any:  # noqa: ANN401
        # Any: the one place where a parsed value gets its type.
        value = self.values.get(name, default)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise self.error(name, f"must be {what}, got {value!r:.100}")
        return value
