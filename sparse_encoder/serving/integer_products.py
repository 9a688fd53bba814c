r"""Products of a graph with fixed weights, in 8-bit integers: a scale for each row and block of what comes in.

For processors that multiply bytes and add them up in 32 bits without running over (VNNI), where onnxruntime's products
of integers outrun those with blocks of weights (``examples/benchmarks/encode_onnx.py`` measures it). Knows no files.

.. math:: x W \approx \sum_b r_b \, (\mathrm{round}(x_b / r_b) \, Q_b) \odot s_b, \qquad r_b = \max |x_b| / 127

Axes: T rows of what comes in, K what is summed over, N columns of a weight, b blocks of K.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparse_encoder.serving.tables import round_rows

MOST_BLOCKS, SMALLEST_BLOCK, LARGEST_WIDTH = 3, 128, 768
"""A row of 384 numbers has 3 scales; rows beyond 768 numbers would need more, and are left alone."""
_TINY = 1e-30
_CONTRIB = "com.microsoft"
_AXES_ARE_INPUTS, _SIZES_ARE_INPUTS, _OLDEST = 18, 13, 11
"""Versions of the operators from which on a maximum is told its axes by an input, and a split its sizes; and the first
that counts axes from the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """What comes into products, block by block: integers, (T, K / b), and a scale of each row, (T, 1)."""

    numbers: list[str]
    scales: list[str]


class IntegerProducts:
    """Turn the products of a graph into those of integers.

    A row is rounded by its own numbers, so that a token's result depends on that token alone.

    Args:
        onnx: The package.
        model: The graph, a ModelProto whose constants are folded; :meth:`rewrite` changes it in place.
    """

    def __init__(self, onnx: Any, model: Any) -> None:  # noqa: ANN401 - as above
        self._onnx, self._graph, self._imports = onnx, model.graph, model.opset_import
        self._version = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
        given = {each.name for each in model.graph.input}  # their numbers are only those if nothing is given
        weights = (each for each in model.graph.initializer if each.name not in given and _is_weight(onnx, each))
        self._weights = {each.name: each for each in weights}
        self._replaced: set[str] = set()
        self._nodes: list[Any] = []  # NodeProtos
        self._constants: dict[str, NDArray[Any]] = {}  # Any: of several types
        self._rows: dict[str, _Rows] = {}

    def rewrite(self) -> int:
        """Replace each product with a float32 matrix of at most :data:`LARGEST_WIDTH` rows; returns how many.

        None where the operators are of a version before 11.
        """
        if self._version < _OLDEST:
            return 0
        count = 0
        for node in self._graph.node:
            if node.op_type == "MatMul" and node.input[1] in self._weights:
                self._product(*node.input, output=node.output[0])
                count += 1
            else:
                self._nodes.append(node)
        if count:
            self._replace()
        return count

    def _replace(self) -> None:
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        unused = self._replaced - _read(self._graph)
        kept = [each for each in self._graph.initializer if each.name not in unused]
        made = [self._onnx.numpy_helper.from_array(value, name) for name, value in self._constants.items()]
        del self._graph.initializer[:]
        self._graph.initializer.extend([*kept, *made])
        if all(each.domain != _CONTRIB for each in self._imports):
            self._imports.append(self._onnx.helper.make_opsetid(_CONTRIB, 1))

    def _product(self, given: str, weight: str, *, output: str) -> None:
        """Add the nodes of one product, (T, K) and (K, N)."""
        matrix = self._onnx.numpy_helper.to_array(self._weights[weight])  # (K, N)
        self._replaced.add(weight)
        if given not in self._rows:
            self._rows[given] = self._round(given, matrix.shape[0])
        rows = self._rows[given]
        one, middle = self._constant("int8_one", np.float32(1)), self._constant("int8_middle", np.uint8(128))
        total = ""
        for place, block in enumerate(np.split(matrix, len(rows.numbers))):
            numbers, scales = round_rows(block.T)  # (N, K / b), (N, 1)
            name = f"{weight}_int8_{place}"
            self._constant(name, np.ascontiguousarray(numbers.T))
            self._constant(f"{name}_scales", scales[:, 0])
            inputs = [rows.numbers[place], name, one, f"{name}_scales", middle]
            product = self._add("MatMulIntegerToFloat", inputs, f"{output}_product_{place}", domain=_CONTRIB)
            part = self._add("Mul", [product, rows.scales[place]], f"{output}_part_{place}")
            total = self._add("Add", [total, part], f"{output}_sum_{place}") if total else part
        self._nodes[-1].output[0] = output

    def _round(self, given: str, width: int) -> _Rows:
        """Add the nodes that round what comes in, (T, K), block by block."""
        one, middle = self._constant("int8_one", np.float32(1)), self._constant("int8_middle", np.uint8(128))
        numbers, scales = [], []
        for piece in self._split(given, width):
            scales.append(self._scale(piece))
            ratio = self._add("Div", [piece, scales[-1]], f"{piece}_ratio")
            numbers.append(self._add("QuantizeLinear", [ratio, one, middle], f"{piece}_int8"))
        return _Rows(numbers=numbers, scales=scales)

    def _scale(self, piece: str) -> str:
        """Add the scale of each row, (T, 1): its largest size is 127; that of a row of zeros is more than 0."""
        sizes = self._add("Abs", [piece], f"{piece}_sizes")
        largest, make = f"{piece}_largest", self._onnx.helper.make_node
        if self._version >= _AXES_ARE_INPUTS:
            axes = self._constant("int8_last_axis", np.array([-1], np.int64))
            self._nodes.append(make("ReduceMax", [sizes, axes], [largest], keepdims=1))
        else:
            self._nodes.append(make("ReduceMax", [sizes], [largest], keepdims=1, axes=[-1]))
        step = self._add("Div", [largest, self._constant("int8_largest", np.float32(127))], f"{piece}_step")
        return self._add("Max", [step, self._constant("int8_tiny", np.float32(_TINY))], f"{piece}_scale")

    def _split(self, given: str, width: int) -> list[str]:
        """Add the blocks of a row, as many as there may be of one size."""
        count = number_of_blocks(width)
        if count == 1:
            return [given]
        pieces = [f"{given}_block_{place}" for place in range(count)]
        make, each = self._onnx.helper.make_node, [width // count] * count
        if self._version >= _SIZES_ARE_INPUTS:
            sizes = self._constant(f"int8_blocks_{width}", np.array(each, np.int64))
            self._nodes.append(make("Split", [given, sizes], pieces, axis=-1))
        else:
            self._nodes.append(make("Split", [given], pieces, axis=-1, split=each))
        return pieces

    def _add(self, kind: str, inputs: list[str], output: str, *, domain: str = "") -> str:
        """Add a node of one output, and return the output's name."""
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [output], domain=domain))
        return output

    def _constant(self, name: str, value: Any) -> str:  # noqa: ANN401 - a number or an array of numpy's
        """Add a constant once, and return its name."""
        self._constants.setdefault(name, np.asarray(value))
        return name


def number_of_blocks(width: int) -> int:
    """Return how many scales a row of ``width`` numbers has."""
    sizes = range(MOST_BLOCKS, 1, -1)
    return next((count for count in sizes if width % count == 0 and width // count >= SMALLEST_BLOCK), 1)


def _is_weight(onnx: Any, tensor: Any) -> bool:  # noqa: ANN401 - the package, a TensorProto
    is_matrix = tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2
    return is_matrix and _is_fine(tensor.dims[0])


def _is_fine(width: int) -> bool:
    """Return whether the scales of a row are of blocks about as small as those of weights elsewhere."""
    return width <= 2 * SMALLEST_BLOCK or (width <= LARGEST_WIDTH and number_of_blocks(width) > 1)


def _read(graph: Any) -> set[str]:  # noqa: ANN401 - a GraphProto
    """Return the names that a graph reads or gives, those that bodies of its nodes read among them."""
    names = {each.name for each in graph.output}
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            names.update(*(_read(body) for body in (attribute.g, *attribute.graphs)))
    return names
