"""What became of an export."""

from __future__ import annotations

from dataclasses import dataclass, replace
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

    def moved(self, old: Path, new: Path) -> ExportReport:
        """Return the report after a folder has got another name.

        Args:
            old: What it was called; the graphs lie in it.
            new: What it is called now.
        """
        data = None if self.external_data is None else new / self.external_data.relative_to(old)
        others = tuple(each.moved(old, new) for each in self.others)
        return replace(self, path=new / self.path.relative_to(old), external_data=data, others=others)
