"""Heads that were taken out of attention, as a ``config.json`` of any family names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparse_encoder.backbone.families.reader import ConfigReader

PRUNED_HEADS = "pruned_heads"


def read_pruned_heads(reader: ConfigReader, num_layers: int) -> tuple[tuple[int, ...], ...] | None:
    """Read ``{"0": [1, 2]}``, heads by layer; the numbers of layers are strings in JSON.

    Args:
        reader: Of the config.
        num_layers: Layers with weights of their own.

    Returns:
        Heads of each layer, in order; None if no layer has lost any.

    Raises:
        ConfigError: If it is no such object, or there is no such layer.
    """
    given = reader.values.get(PRUNED_HEADS)
    if not given:
        return None
    if not isinstance(given, Mapping):
        raise reader.error(PRUNED_HEADS, f"must be an object, got {given!r:.100}")
    pruned: list[tuple[int, ...]] = [()] * num_layers
    for layer, heads in given.items():
        number = int(layer) if str(layer).isdecimal() and len(str(layer)) < 6 else -1
        if not 0 <= number < num_layers:
            raise reader.error(PRUNED_HEADS, f"must name layers from 0 to {num_layers - 1}, got {layer!r:.100}")
        if not isinstance(heads, Sequence) or any(type(head) is not int for head in heads):
            raise reader.error(PRUNED_HEADS, f"must list the numbers of heads, got {heads!r:.100}")
        pruned[number] = tuple(sorted({*pruned[number], *heads}))
    return tuple(pruned) if any(pruned) else None


def written_pruned_heads(pruned: tuple[tuple[int, ...], ...] | None) -> dict[str, Any]:  # Any: JSON
    """Return heads by layer as they are written."""
    return {str(layer): list(heads) for layer, heads in enumerate(pruned or ()) if heads}
