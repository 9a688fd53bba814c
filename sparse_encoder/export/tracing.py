"""From a module to a graph in memory, through torch.export and torch.onnx. Knows no model and no file."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from sparse_encoder.backbone.devices import device_of
from sparse_encoder.checkpoint.graph_names import DEFAULT_OPSET
from sparse_encoder.export.errors import ExportError
from sparse_encoder.export.extra import require
from sparse_encoder.export.graph import Axes, Graph
from sparse_encoder.export.state import check_values, traceable

if TYPE_CHECKING:
    from torch.export import ExportedProgram

OLDEST_OPSET, NEWEST_OPSET = 17, 25
"""What torch writes: it makes operators of version 18 and more, and turns some graphs into those of 17.

Whether a file has the version that was asked for is looked up in it.
"""
NOISY = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")


def check_opset(opset: int) -> None:
    """Check that a version of the operators may work.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is known not to work.
    """
    if isinstance(opset, bool) or not isinstance(opset, int):
        raise TypeError(f"opset must be an integer, got {opset!r:.80}")
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise ValueError(
            f"opset must be between {OLDEST_OPSET} and {NEWEST_OPSET}, got {opset}; {DEFAULT_OPSET} is the default"
        )


def trace(graph: Graph, opset: int) -> Any:  # noqa: ANN401 - an onnx_ir.Model, whose package may be missing
    """Trace a module.

    Args:
        graph: The module, an example and the axes that may have any length.
        opset: Version of the operators.

    Returns:
        The graph with the names it is to have.

    Raises:
        ExportError: If torch cannot trace it, or an axis does not stay free.
        ValueError: If torch cannot write this version of the operators.
    """
    for name in ("onnx", "onnxscript"):
        require(name)
    check_values(graph.module)
    if list(graph.example) != list(graph.inputs):
        raise ValueError(f"the inputs must be {list(graph.inputs)}, got {list(graph.example)}")
    with quiet(), traceable(graph.module):
        program = _translate(graph, _capture(graph), opset)
    model = program.model
    written = model.opset_imports.get("")
    if written != opset:
        raise ValueError(
            f"opset {opset} is not supported: torch wrote operators of version {written}; "
            f"leave opset out for {DEFAULT_OPSET}"
        )
    _name_axes(program, graph)
    _forget_origin(model)
    model.metadata_props.update(graph.metadata)
    return model


def _capture(graph: Graph) -> ExportedProgram:
    """Trace the module with axes of any length."""
    free = [dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in graph.inputs.values()]
    device = device_of(graph.module)
    values = [value.to(device) for value in graph.example.values()]
    try:
        captured = torch.export.export(
            graph.module, tuple(values), dynamic_shapes=_by_argument(graph.module, free), strict=False
        )
    except (RuntimeError, ValueError, TypeError, torch._dynamo.exc.UserError) as reason:
        raise ExportError(f"torch.export cannot trace {type(graph.module).__name__}: {reason}") from reason
    # With examples torch would check its guards on the shapes of a past, for which torch 2.13 cannot name the inputs;
    # that the graph holds for other shapes is seen by comparing.
    captured.example_inputs = None
    return captured


def _by_argument(module: torch.nn.Module, values: list[Any]) -> tuple[Any, ...]:  # Any: what belongs to an input
    """Put what belongs to inputs into the form of a module's arguments, of which the last may take several."""
    kinds = [each.kind for each in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(values)
    first = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*values[:first], tuple(values[first:])) if values[first:] else tuple(values)


def _translate(graph: Graph, captured: ExportedProgram, opset: int) -> Any:  # noqa: ANN401 - an ONNXProgram
    """Turn what was traced into operators."""
    try:
        return torch.onnx.export(
            captured,
            (),
            dynamo=True,
            verbose=False,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=opset,
        )
    except (RuntimeError, ValueError, torch.onnx.OnnxExporterError) as reason:
        raise ExportError(f"torch.onnx cannot translate {type(graph.module).__name__}: {reason}") from reason


def _name_axes(program: Any, graph: Graph) -> None:  # noqa: ANN401 - an ONNXProgram
    """Give the free axes their names, and check that they are free."""
    model = program.model
    names: dict[str, str] = {}
    for value, axes in zip(model.graph.inputs, graph.inputs.values(), strict=True):
        for place, name in axes.items():
            symbol = _symbol(value, place)
            if symbol.isidentifier():  # not a sum of others
                names.setdefault(symbol, name)
    program.rename_axes(names)
    for kind, values in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        _name_values(getattr(model.graph, kind), values)


def _name_values(values: Any, axes: Axes) -> None:  # noqa: ANN401 - of onnx_ir
    for value, names in zip(values, axes.values(), strict=True):
        if value.shape is None:
            raise ExportError(f"{value.name!r} has no known number of axes in the graph")
        for place, name in names.items():
            _symbol(value, place)
            value.shape[place] = name


def _symbol(value: Any, place: int) -> str:  # noqa: ANN401 - of onnx_ir
    """Return what an axis is called.

    Raises:
        ExportError: If it has one length only.
    """
    axis = value.shape[place]
    if isinstance(axis, int):
        raise ExportError(f"axis {place} of {value.name!r} was frozen at the length {axis} of the example")
    return str(axis.value)


def _forget_origin(model: Any) -> None:  # noqa: ANN401 - an onnx_ir.Model
    """Take out where in whose files each node comes from."""
    import onnx_ir

    for node in onnx_ir.traversal.RecursiveGraphIterator(model.graph):
        node.metadata_props.clear()
        for output in node.outputs:
            output.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what exporters tell about themselves; errors still come as exceptions."""
    loggers = [logging.getLogger(name) for name in NOISY]
    loggers += [
        each
        for name, each in logging.Logger.manager.loggerDict.items()
        if isinstance(each, logging.Logger) and name.startswith(NOISY)
    ]
    levels = [(logger, logger.level) for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in levels:
                logger.setLevel(level)
