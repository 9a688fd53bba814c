"""What became of an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportReport:
    """Tell what a graph holds, and how near it is to its model."""

    path: Path
    """Of the graph."""
    opset: int
    """As the file says."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    num_bytes: int
    """Of the graph and the data beside it."""
    external_data: Path | None
    """The file beside the graph that holds the weights, if they are not in it."""
    num_cases: int
    """Batches that were compared; 0 without validation."""
    largest_difference: float | None
    """To the model's outputs; None without validation."""
    others: tuple[ExportReport, ...] = ()
    """Of the graphs behind the first: those of other routes, or the decoder's."""
