"""Options of `torch.compile`, as a value that can be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class CompileConfig:
    """Say how a model's call is compiled; fields are the arguments of ``torch.compile``.

    Raises:
        ValueError: If both ``mode`` and ``options`` are given, which torch does not take together.
    """

    fullgraph: bool = False
    dynamic: bool | None = None
    backend: str | Callable[..., Any] = "inductor"  # Any: torch says no more
    mode: str | None = "reduce-overhead"
    """None when ``options`` are given."""
    options: Mapping[str, Any] | None = None  # Any: each backend has its own

    def __post_init__(self) -> None:
        """Check what does not go together."""
        if self.mode is not None and self.options is not None:
            raise ValueError(f"give mode or options, not both; got {self.mode!r} and {dict(self.options)}")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of ``torch.compile``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "options": None if self.options is None else dict(self.options)}

    @classmethod
    def of(cls, value: object | None) -> CompileConfig:
        """Return a config of ours, also from any object with the same attributes; None means the defaults.

        Raises:
            TypeError: If it lacks one.
        """
        if value is None or isinstance(value, cls):
            return value or cls()
        names = [field.name for field in fields(cls)]
        if lacking := [name for name in names if not hasattr(value, name)]:
            raise TypeError(
                f"compile_config must be a CompileConfig or have its attributes {names}; "
                f"a {type(value).__name__} lacks {lacking}"
            )
        return cls(**{name: getattr(value, name) for name in names})
