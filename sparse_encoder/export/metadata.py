"""What a graph's file says about itself."""

from __future__ import annotations

from collections.abc import Mapping

from sparse_encoder.checkpoint.graph_names import METADATA_PREFIX, TASK

VERSION = 1


def metadata_of(task: str, facts: Mapping[str, object]) -> dict[str, str]:
    """Return facts as a file holds them, under our prefix; what is None is left out.

    Args:
        task: What the graph computes.
        facts: Others, by name, with the prefix or without.
    """
    told = {"version": VERSION, TASK: task, **facts}
    return {
        f"{METADATA_PREFIX}{name.removeprefix(METADATA_PREFIX)}": str(value)
        for name, value in told.items()
        if value is not None
    }
