"""A written graph against its model, batch by batch, on onnxruntime. Knows no model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse_encoder.backbone.devices import device_of
from sparse_encoder.backbone.modes import evaluating
from sparse_encoder.checkpoint.onnx_packages import first_line, open_graph, runtime_errors
from sparse_encoder.export.errors import ExportError, OutputMismatchError
from sparse_encoder.export.extra import require
from sparse_encoder.export.graph import Case, Difference, Graph, Tensors
from sparse_encoder.export.state import full_precision

SHOWN_INPUTS = 5
"""Whose shapes an error tells."""


def open_session(path: Path) -> Any:  # noqa: ANN401 - an InferenceSession, whose package may be missing
    """Open a graph on the CPU.

    Args:
        path: The file.

    Raises:
        ExportError: If onnxruntime cannot open it.
    """
    onnxruntime = require("onnxruntime")
    with _typed(path):
        return open_graph(onnxruntime, path)


@contextmanager
def _typed(path: Path) -> Iterator[None]:
    """Turn what onnxruntime raises into our error."""
    try:
        yield
    except runtime_errors(require("onnxruntime")) as reason:
        raise ExportError(f"onnxruntime refuses the graph: {first_line(reason)}", path=path) from reason


def run_session(session: Any, inputs: Mapping[str, Tensor]) -> Tensors:  # noqa: ANN401 - as above
    """Run a graph.

    Args:
        session: Of :func:`open_session`.
        inputs: By the names of the graph.

    Returns:
        All outputs by name.
    """
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {name: tensor.detach().cpu().numpy() for name, tensor in inputs.items()})
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


def value_by_value(expected: Tensors, found: Tensors) -> list[Difference]:
    """Return the largest difference of each output, infinite where one is finite and the other is not."""
    return [Difference(name, largest_difference(tensor, found[name])) for name, tensor in expected.items()]


def largest_difference(expected: Tensor, found: Tensor) -> float:
    """Return the largest difference of two tensors of one shape; NaN differs from everything."""
    if not expected.numel():
        return 0.0
    first, second = expected.detach().cpu().double(), found.double()
    gaps = torch.where(first == second, 0.0, (first - second).abs())
    return float(gaps.nan_to_num(nan=torch.inf).max())


def compare_graph(path: Path, graph: Graph, *, tolerance: float) -> float:
    """Run a written graph and its model on each case.

    Args:
        path: The file.
        graph: Its model, cases and names.
        tolerance: Largest difference that is allowed, absolute, and relative to the largest number of an output.

    Returns:
        The largest difference.

    Raises:
        ExportError: If onnxruntime cannot run the graph.
        OutputMismatchError: If a name, a shape or a number differs.
    """
    session = open_session(path)
    check_names(session, graph)
    device = device_of(graph.module)
    largest = 0.0
    for case in graph.cases:
        with torch.no_grad(), evaluating(graph.module), full_precision(graph.module):
            expected = graph.reference({name: tensor.to(device) for name, tensor in case.inputs.items()})
        with _typed(path):
            found = run_session(session, case.inputs if graph.feed is None else graph.feed(case.inputs))
        largest = max(largest, _check_case(case, graph, expected, found, tolerance))
    return largest


def check_names(session: Any, graph: Graph) -> None:  # noqa: ANN401 - as above
    """Check that a graph has the inputs and at least the outputs that are compared.

    Raises:
        OutputMismatchError: If it has others.
    """
    inputs = [each.name for each in session.get_inputs()]
    if inputs != list(graph.inputs):
        raise OutputMismatchError(f"the graph must have the inputs {list(graph.inputs)}, it has {inputs}")
    outputs = [each.name for each in session.get_outputs()]
    if missing := [name for name in graph.outputs if name not in outputs]:
        raise OutputMismatchError(f"the graph must have the outputs {missing}, it has {outputs}")


def _check_case(case: Case, graph: Graph, expected: Tensors, found: Tensors, tolerance: float) -> float:
    shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in list(case.inputs.items())[:SHOWN_INPUTS])
    where = f"{case.label}, {shapes}"
    for name in graph.outputs:
        if found[name].shape != expected[name].shape:
            shapes = f"{tuple(found[name].shape)} for {tuple(expected[name].shape)}"
            raise OutputMismatchError(f"{name!r} has another shape than the model's, {shapes}, at {where}")
    largest = 0.0
    compare = graph.compare or value_by_value
    for output, difference in compare({name: tensor.cpu() for name, tensor in expected.items()}, found):
        scale = max(1.0, float(expected[output].detach().abs().max()) if expected[output].numel() else 0.0)
        if not difference <= tolerance * scale:
            told = f"{output!r} differs from the model's by {difference:.3g}, more than {tolerance:g}"
            raise OutputMismatchError(f"{told}, at {where}", difference=difference)
        largest = max(largest, difference)
    return largest
