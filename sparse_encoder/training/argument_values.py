"""Settings that may be given as JSON, as on a command line, or as objects of other libraries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_ACCELERATOR = {
    "split_batches": False,
    "dispatch_batches": None,
    "even_batches": True,
    "use_seedable_sampler": True,
    "non_blocking": False,
    "gradient_accumulation_kwargs": None,
    "use_configured_state": False,
}
"""What transformers' ``AcceleratorConfig`` says by default, which is what is done here."""


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


def asks_for_nothing(accelerator_config: object) -> bool:
    """Return whether an ``accelerator_config``, an object or a mapping, has default values only."""
    values = (
        accelerator_config if isinstance(accelerator_config, Mapping) else getattr(accelerator_config, "__dict__", {})
    )
    return bool(values) and all(name in _ACCELERATOR and _ACCELERATOR[name] == each for name, each in values.items())
