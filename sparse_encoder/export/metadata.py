"""What a graph's file says about itself."""

from __future__ import annotations

from collections.abc import Mapping

PREFIX = "sparse_encoder."
VERSION = 1


def metadata_of(task: str, facts: Mapping[str, object]) -> dict[str, str]:
    """Return facts as a file holds them, under our names; what is None is left out.

    Args:
        task: What the graph computes.
        facts: Others, by name.
    """
    told = {"version": VERSION, "task": task, **facts}
    return {f"{PREFIX}{name}": str(value) for name, value in told.items() if value is not None}
