"""Typed access to a foreign `config.json`: a value of the wrong type is an error that names its field."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparse_encoder.checkpoint.errors import ConfigError

DANGEROUS = ("auto_map", "trust_remote_code", "custom_pipelines", "quantization_config")
"""Keys that elsewhere load code or change what a file means; `_attn_implementation*` is the last of them."""

Plain = bool | int | float | str | None
_WORDS: dict[type, str] = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}


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

    def like(self, name: str, default: Plain, *, nullable: bool = False) -> Plain:
        """Return a value of the default's type; an integer counts as a real number, a boolean as no number.

        Args:
            name: Its key.
            default: Taken when the key is missing.
            nullable: Whether null may stand for None.
        """
        value = self.values.get(name, default)
        if value is None and (nullable or name not in self.values):
            return None
        wanted = int if default is None else type(default)
        accepted = (int, float) if wanted is float else (wanted,)
        if not isinstance(value, accepted) or (isinstance(value, bool) and wanted is not bool):
            raise self.error(name, f"must be {_WORDS[wanted]}, got {value!r:.100}")
        return wanted(value)

    def count(self, name: str, default: int, largest: int) -> int:
        """Return an integer from 1 on."""
        value = self.like(name, default)
        assert isinstance(value, int)
        if not 1 <= value <= largest:
            raise self.error(name, f"must be between 1 and {largest}, got {value}")
        return value

    def integer(self, name: str, default: int, largest: int) -> int:
        """Return an integer, which may be negative."""
        value = self.like(name, default)
        assert isinstance(value, int)
        if value > largest:
            raise self.error(name, f"must be at most {largest}, got {value}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Return true or false."""
        value = self.like(name, default)
        assert isinstance(value, bool)
        return value

    def real(self, name: str, default: float) -> float:
        """Return a number."""
        value = self.like(name, default)
        assert isinstance(value, float)
        return value

    def text(self, name: str, default: str) -> str:
        """Return a string."""
        value = self.like(name, default)
        assert isinstance(value, str)
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
