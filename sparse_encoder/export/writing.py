"""From a described graph to a file that has been compared with its model. All exports go through here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sparse_encoder.checkpoint.graph_names import DEFAULT_OPSET, data_name
from sparse_encoder.checkpoint.onnx_packages import PACKAGES
from sparse_encoder.export.comparison import compare_graph
from sparse_encoder.export.errors import ExportError, OutputMismatchError
from sparse_encoder.export.extra import require
from sparse_encoder.export.graph import Graph
from sparse_encoder.export.placing import save_model, staged_graphs
from sparse_encoder.export.report import ExportReport
from sparse_encoder.export.tracing import check_opset, trace

DEFAULT_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteSettings:
    """Say how graphs are written.

    Raises:
        TypeError: If a value is of another type.
        ValueError: If a value is out of range.
    """

    opset: int = DEFAULT_OPSET
    """Version of the operators."""
    external_data: bool | None = None
    """Whether weights lie in a file beside the graph; None: if they are too large for it."""
    validate: bool = True
    """Whether to compare a graph with its model, on each of its cases."""
    tolerance: float = DEFAULT_TOLERANCE
    """Largest difference that is allowed, absolute, and relative to the largest number of an output."""

    def __post_init__(self) -> None:
        """Check every value."""
        check_opset(self.opset)
        for name in ("external_data", "validate"):
            value = getattr(self, name)
            if not isinstance(value, bool) and not (name == "external_data" and value is None):
                raise TypeError(f"{name} must be True or False, got {value!r:.80}")
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance must be at least 0, got {self.tolerance}")


def write_graphs(graphs: Mapping[str, Graph], folder: Path, settings: WriteSettings) -> list[ExportReport]:
    """Write graphs, all or none; after an error what was in their places is still there.

    Args:
        graphs: By their places in the folder.
        folder: Made if it is not there.
        settings: How.

    Returns:
        What was written, in order.

    Raises:
        ImportError: If a package is missing; says how to install it.
        ExportError: If torch cannot make a graph, or it computes something else than its model.
        ValueError: If a version of the operators is not supported.
    """
    check_packages(settings)
    with staged_graphs(folder) as stage:
        reports = []
        for name, graph in graphs.items():
            report = write_graph(graph, stage / name, settings)
            data = None if report.external_data is None else (folder / name).with_name(report.external_data.name)
            reports.append(replace(report, path=folder / name, external_data=data))
    return reports


def check_packages(settings: WriteSettings) -> None:
    """Look for what is needed before anything is done.

    Raises:
        ImportError: If a package is missing; says how to install it.
    """
    for name in PACKAGES if settings.validate else PACKAGES[:2]:
        require(name)


def write_graph(graph: Graph, path: Path, settings: WriteSettings) -> ExportReport:
    """Write one graph where it stands, and look at it.

    Args:
        graph: The graph.
        path: The file; folders above it are made.
        settings: How.
    """
    model = trace(graph, settings.opset)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(model, path, external_data=settings.external_data)
    check_file(path)
    largest = _compare(path, graph, settings.tolerance) if settings.validate else None
    data = path.with_name(data_name(path))
    outside = data.stat().st_size if data.exists() else 0
    return ExportReport(
        path=path,
        opset=settings.opset,
        inputs=tuple(graph.inputs),
        outputs=tuple(graph.outputs),
        num_bytes=path.stat().st_size + outside,
        external_data=data if outside else None,
        num_cases=len(graph.cases) if settings.validate else 0,
        largest_difference=largest,
    )


def _compare(path: Path, graph: Graph, tolerance: float) -> float:
    """Compare, and say in an error what became of the file."""
    try:
        return compare_graph(path, graph, tolerance=tolerance)
    except OutputMismatchError as reason:
        hint = "The file is not kept; validate=False writes it without comparing"
        raise OutputMismatchError(str(reason), difference=reason.difference, hint=hint) from reason


def check_file(path: Path) -> None:
    """Let onnx judge a file.

    Raises:
        ExportError: If it is no valid graph.
    """
    onnx = require("onnx")
    try:
        onnx.checker.check_model(str(path), full_check=False)
    except onnx.checker.ValidationError as reason:
        raise ExportError(f"onnx refuses the graph: {reason}", path=path) from reason
