"""Products of integers in graphs: against numpy, row by row, for every version of the operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sparse_encoder.serving.integer_products import IntegerProducts, number_of_blocks
from sparse_encoder.serving.machine import this_machine

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

ROWS, COLUMNS = 5, 7


def product(width: int, *, opset: int = 20) -> tuple[Any, NDArray[np.float32]]:
    """Return a graph of one product, and its weight, (width, COLUMNS)."""
    weight = np.random.default_rng(0).standard_normal((width, COLUMNS)).astype(np.float32)
    make = onnx.helper
    given = make.make_tensor_value_info("given", onnx.TensorProto.FLOAT, ["rows", width])
    found = make.make_tensor_value_info("found", onnx.TensorProto.FLOAT, ["rows", COLUMNS])
    node = make.make_node("MatMul", ["given", "weight"], ["found"])
    graph = make.make_graph([node], "graph", [given], [found], [onnx.numpy_helper.from_array(weight, "weight")])
    return make.make_model(graph, opset_imports=[make.make_opsetid("", opset)], ir_version=10), weight


def run(model: Any, given: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: ANN401 - a ModelProto
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, {"given": given})[0]
    return found


def rounded(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Round rows to 127 steps each side of 0."""
    steps = np.maximum(np.abs(values).max(axis=1, keepdims=True) / np.float32(127), np.float32(1e-30))
    return np.rint(values / steps).astype(np.float64) * steps


@pytest.mark.skipif(this_machine() in ("avx2", "avx512"), reason="sums of two products run over 16 bits here")
@pytest.mark.parametrize(("width", "opset"), [(12, 20), (256, 17), (384, 20), (768, 25), (384, 11), (768, 12)])
def test_a_product_is_that_of_rounded_blocks(width: int, opset: int) -> None:
    model, weight = product(width, opset=min(opset, onnx.defs.onnx_opset_version()))
    assert IntegerProducts(onnx, model).rewrite() == 1
    onnx.checker.check_model(model)
    given = np.random.default_rng(1).standard_normal((ROWS, width)).astype(np.float32)
    given[1] = 0
    given[2, 3] = 50
    count = number_of_blocks(width)
    blocks = zip(np.split(given, count, axis=1), np.split(weight, count), strict=True)
    expected = sum(rounded(rows) @ rounded(block.T).T for rows, block in blocks)
    found = run(model, given)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert not found[1].any()
    exact = np.delete(given @ weight, 2, axis=0)
    assert np.abs(np.delete(found, 2, axis=0) - exact).max() < 0.02 * np.abs(exact).max()
    for row in range(ROWS):
        assert np.array_equal(run(model, given[row : row + 1])[0], found[row])


def test_what_comes_into_several_products_is_rounded_once() -> None:
    model, _ = product(12)
    graph = model.graph
    graph.node.append(onnx.helper.make_node("MatMul", ["given", "weight"], ["again"]))
    graph.output.append(onnx.helper.make_tensor_value_info("again", onnx.TensorProto.FLOAT, ["rows", COLUMNS]))
    assert IntegerProducts(onnx, model).rewrite() == 2
    assert [node.op_type for node in graph.node].count("QuantizeLinear") == 1
    assert sorted(each.name for each in graph.initializer if "weight" in each.name) == [
        "weight_int8_0",
        "weight_int8_0_scales",
    ]


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 20])
def test_graphs_of_each_version_are_valid(opset: int) -> None:
    model, _ = product(384, opset=opset)
    assert IntegerProducts(onnx, model).rewrite() == 1
    onnx.checker.check_model(model)
    assert run(model, np.ones((ROWS, 384), np.float32)).shape == (ROWS, COLUMNS)


def test_weights_that_are_read_elsewhere_stay() -> None:
    model, weight = product(12)
    graph, make = model.graph, onnx.helper
    value = make.make_tensor_value_info("value", onnx.TensorProto.FLOAT, [12, COLUMNS])
    bodies = [
        make.make_graph([make.make_node(kind, ["weight"], ["value"])], kind, [], [value]) for kind in ("Abs", "Neg")
    ]
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(False), "choice"))
    graph.node.append(make.make_node("If", ["choice"], ["other"], then_branch=bodies[0], else_branch=bodies[1]))
    graph.output.append(make.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [12, COLUMNS]))
    graph.output.append(make.make_tensor_value_info("weight", onnx.TensorProto.FLOAT, [12, COLUMNS]))
    assert IntegerProducts(onnx, model).rewrite() == 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    other, told = session.run(["other", "weight"], {"given": np.ones((ROWS, 12), np.float32)})
    assert np.array_equal(other, -weight) and np.array_equal(told, weight)


@pytest.mark.parametrize(("width", "opset"), [(769, 20), (257, 20), (12, 10)])
def test_wide_rows_and_old_operators_are_left_to_others(width: int, opset: int) -> None:
    model, _ = product(width, opset=opset)
    before = model.SerializeToString()
    assert IntegerProducts(onnx, model).rewrite() == 0
    assert model.SerializeToString() == before


def test_rows_have_as_many_scales_as_blocks_of_one_size() -> None:
    widths = {12: 1, 128: 1, 256: 2, 257: 1, 312: 2, 384: 3, 512: 2, 768: 3}
    assert {width: number_of_blocks(width) for width in widths} == widths
