"""Embedding tables of a graph in 8 bits: a scale for each row, put back behind the look-up. Knows no products.

Axes: V rows, D columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGE_TABLE = 4096
"""Rows from which on a table is worth it: a vocabulary's. Positions and types of tokens stay as they are."""
_LARGEST = 127


def quantize_tables(onnx: Any, model: Any) -> None:  # noqa: ANN401 - the package, a ModelProto
    """Turn the large float32 tables that a graph looks up into 8 bits, in place.

    A row of 8-bit numbers and its scale are looked up and multiplied, so that a token's result depends on it alone.

    Args:
        onnx: The package.
        model: The graph.
    """
    graph = model.graph
    tables = {each.name: each for each in graph.initializer if _is_large(onnx, each)}
    nodes, quantized = [], set()
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in tables and _axis(node) == 0:
            quantized.add(node.input[0])
            nodes += _looked_up(onnx, node)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    kept = [each for each in graph.initializer if each.name not in quantized or each.name in read]
    new = [tensor for name in sorted(quantized) for tensor in _rounded(onnx, tables[name])]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *new])


def round_rows(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round each row by a scale of its own: ``table = numbers * scales``, up to half a scale.

    Args:
        table: (V, D).

    Returns:
        Numbers from -127 to 127, (V, D), and scales, (V, 1).
    """
    largest = np.abs(table).max(axis=1, keepdims=True)
    scales = np.where(largest == 0, 1, largest / _LARGEST).astype(np.float32)
    return np.rint(table / scales).astype(np.int8), scales


def _is_large(onnx: Any, tensor: Any) -> bool:  # noqa: ANN401 - a TensorProto
    return tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2 and tensor.dims[0] >= LARGE_TABLE


def _axis(node: Any) -> int:  # noqa: ANN401 - a NodeProto
    return next((int(each.i) for each in node.attribute if each.name == "axis"), 0)


def _looked_up(onnx: Any, node: Any) -> list[Any]:  # noqa: ANN401 - NodeProtos
    table, ids, output = node.input[0], node.input[1], node.output[0]
    rows, numbers, scales = f"{output}_int8", f"{output}_numbers", f"{output}_scales"
    make = onnx.helper.make_node
    return [
        make("Gather", [f"{table}_int8", ids], [rows], axis=0),
        make("Cast", [rows], [numbers], to=onnx.TensorProto.FLOAT),
        make("Gather", [f"{table}_scales", ids], [scales], axis=0),
        make("Mul", [numbers, scales], [output]),
    ]


def _rounded(onnx: Any, tensor: Any) -> list[Any]:  # noqa: ANN401 - TensorProtos
    numbers, scales = round_rows(onnx.numpy_helper.to_array(tensor))
    make = onnx.numpy_helper.from_array
    return [make(numbers, f"{tensor.name}_int8"), make(scales, f"{tensor.name}_scales")]
