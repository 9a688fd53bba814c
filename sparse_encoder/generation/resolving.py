"""Which setting holds: what the call says, then the config it passes, then the model's, then the default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sparse_encoder.generation.callers import warn
from sparse_encoder.generation.config import GenerationConfig
from sparse_encoder.generation.config_fields import DEFAULTS, FIELDS, NOT_OFFERED


class Resolved(NamedTuple):
    """Hold the settings of one call."""

    config: GenerationConfig
    """A config of its own, with every default in place."""
    others: dict[str, Any]
    """What was given and is no field, by name."""
    max_length_set: bool
    """Whether ``max_length`` is more than the default of all models."""
    min_length_set: bool


def resolve(passed: GenerationConfig | None, of_model: GenerationConfig, changes: Mapping[str, Any]) -> Resolved:
    """Settle every field of a generation config; none that comes in is changed.

    A field that is None in a config is not set; one that is None in the call takes a default away, so that
    ``top_k=None`` keeps every token.

    Args:
        passed: The config of the call.
        of_model: The config of the model.
        changes: Fields and other arguments of the call, by name.

    Raises:
        ValueError: If fields contradict each other or are not offered.
    """
    named = sorted(changes.keys() & (FIELDS.keys() | NOT_OFFERED.keys()))
    if passed is not None and named:
        warn(f"generation_config and {named} are both given, and the latter win; put everything into one of them")
    config = GenerationConfig() if passed is None else passed.copy()
    fill(config, {name: getattr(of_model, name) for name in FIELDS})
    max_length_set = config.max_length is not None or changes.get("max_length") is not None
    min_length_set = config.min_length is not None or changes.get("min_length") is not None
    fill(config, DEFAULTS)
    others = config.update(**changes)
    return Resolved(config, others, max_length_set, min_length_set)


def fill(config: GenerationConfig, values: Mapping[str, object]) -> None:
    """Set the fields that are None."""
    for name, value in values.items():
        if getattr(config, name) is None:
            setattr(config, name, value)
