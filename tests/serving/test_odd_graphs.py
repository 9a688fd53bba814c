"""Graphs that open and give something else than a sparse encoder gives: errors that name the file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_helpers import write_masked_language_model
from serving_helpers import copy_of, exported_folder

from sparse_encoder import SparseEncoder
from sparse_encoder.checkpoint import LoadError
from sparse_encoder.embeddings_arrays import ArrayEmbeddings
from sparse_encoder.serving import OnnxSparseEncoder
from sparse_encoder.serving.opening import find_graph
from sparse_encoder.serving.options import BackendOptions

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

V = 88
DIMENSIONS = {"sparse_encoder.num_dimensions": str(V)}
INT64 = 7


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return copy_of(exported_folder(), tmp_path / "model")


def write(folder: Path, values: dict[str, Any], axes: dict[str, list[Any]], metadata: dict[str, str]) -> Path:
    """Write a graph whose outputs are constants, whatever the shapes that it claims."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    tensors = {name: numpy_helper.from_array(np.array(value), name) for name, value in values.items()}
    graph = helper.make_graph(
        [helper.make_node("Constant", [], [name], value=tensor) for name, tensor in tensors.items()],
        "graph",
        [helper.make_tensor_value_info(name, INT64, ["b", "s"]) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info(name, tensors[name].data_type, shape) for name, shape in axes.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, folder / "onnx" / "model.onnx")
    return folder


def pairs(folder: Path, columns: list[int], dimensions: str = str(V)) -> Path:
    values = {"indices": [columns], "weights": np.ones((1, len(columns)), dtype=np.float32)}
    shape = ["b", len(columns)]
    metadata = {"sparse_encoder.num_dimensions": dimensions}
    return write(folder, values, {"indices": shape, "weights": shape}, metadata)


def opened(folder: Path, **options: str) -> OnnxSparseEncoder:
    return SparseEncoder(str(folder), backend="onnx", model_kwargs=options or None)


def check_names_the_file(folder: Path, message: str) -> None:
    with pytest.raises(LoadError, match=message) as caught:
        opened(folder).encode(["rain"])
    assert caught.value.path == str(folder / "onnx" / "model.onnx")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([1, 500], "columns must be between 0 and 87, got 1 to 500"),
        ([-3, 2], "columns must be between 0 and 87, got -3 to 2"),
        ([2, 2], "columns must be different ones within a row"),
    ],
)
def test_terms_that_there_are_not_are_refused(copy: Path, columns: list[int], message: str) -> None:
    check_names_the_file(pairs(copy, columns), message)
    with pytest.raises(ValueError, match=message):
        ArrayEmbeddings.from_pairs(np.array([columns]), np.ones((1, 2)), V)


@pytest.mark.parametrize("told", ["0", "9" * 30, "٣", "-1", "x", "", str(2**31)])
def test_numbers_of_terms_that_cannot_be_are_refused(copy: Path, told: str) -> None:
    check_names_the_file(pairs(copy, [1, 2], told), "must be a number between 1 and 2147483647, got")


def test_more_terms_than_the_vocabulary_are_refused(copy: Path) -> None:
    check_names_the_file(pairs(copy, [1, 2], "500"), "has 500 terms, and config.json a vocabulary of 88")
    assert opened(pairs(copy, [1, 2])).encode("rain").to_dict() == {1: 1.0, 2: 1.0}


@pytest.mark.parametrize(
    ("shape", "claimed", "metadata", "message"),
    [
        ((2, V), ["b", V], {}, r"must have the shape \(1, 88\) for a batch of \(1, \d+\), it has \(2, 88\)"),
        ((1, V), ["b", V], {"sparse_encoder.num_dimensions": "500"}, "says 500 terms, and 'sentence_embedding' has 88"),
        ((1, 3), ["b", "v"], DIMENSIONS, "says 88 terms, and 'sentence_embedding' has 3"),
        ((1, V), ["b", V], {"sparse_encoder.task": "masked-lm"}, "is for 'sparse-embedding', got 'masked-lm'"),
        ((1, V), ["b", V], {"sparse_encoder.longest": "9" * 40}, "must be a number between 1 and"),
    ],
)
def test_other_shapes_and_tasks_are_refused(
    copy: Path, shape: tuple[int, ...], claimed: list[Any], metadata: dict[str, str], message: str
) -> None:
    values = {"sentence_embedding": np.ones(shape, dtype=np.float32)}
    check_names_the_file(write(copy, values, {"sentence_embedding": claimed}, metadata), message)


def test_integers_are_no_weights_and_logits_have_the_texts_tokens(copy: Path) -> None:
    whole = write(copy, {"sentence_embedding": np.ones((1, V), dtype=np.int64)}, {"sentence_embedding": ["b", V]}, {})
    check_names_the_file(whole, r"must be one of \['tensor\(float\)'.*it is tensor\(int64\)")
    logits = {"logits": np.ones((1, 2, V), dtype=np.float32)}
    check_names_the_file(write(copy, logits, {"logits": ["b", "s", V]}, {}), r"it has \(1, 2, 88\)")


def test_flipped_bits_are_our_errors_and_nothing_is_printed(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = copy / "onnx" / "model.onnx"
    whole = path.read_bytes()
    refused = 0
    for seed in range(40):
        draw, content = random.Random(seed), bytearray(whole)
        for _ in range(3):
            content[draw.randrange(0, 6000)] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(content))
        try:
            opened(copy).encode("rain")
        except LoadError as reason:
            refused += 1
            assert reason.path == str(path)
        except ValueError as reason:
            assert "not finite" in str(reason)
    assert refused > 10
    assert "EP Error" not in "".join(capfd.readouterr())


def test_a_name_in_a_folder_that_is_not_there_opens_nothing_else(copy: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no graph 'nowhere/model.onnx'; there are \['onnx/model.onnx'\]"):
        opened(copy, file_name="nowhere/model.onnx")
    routes = copy / "onnx" / "document"
    routes.mkdir()
    (routes / "model.onnx").touch()
    for name in ("model.onnx", "onnx/model.onnx", "onnx/document/model.onnx"):
        assert find_graph(copy, "document", BackendOptions(file_name=name)) == routes / "model.onnx"
    with pytest.raises(FileNotFoundError, match="has no graph 'onnx/query/model.onnx'"):
        find_graph(copy, "document", BackendOptions(file_name="onnx/query/model.onnx"))


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (["provider"], TypeError, r"model_kwargs must be a dict, got \['provider'\]"),
        ({"provider": "CPUExecutionProvider", "provider_options": [1]}, TypeError, "provider_options in model_kwargs"),
        ({"export": "yes"}, TypeError, "export in model_kwargs must be True, False or None, got 'yes'"),
        ({"export": 1}, TypeError, "export in model_kwargs must be True, False or None, got 1"),
        ({"subfolder": 1}, TypeError, "subfolder in model_kwargs must be a string, got 1"),
        ({"providers": 3}, ValueError, "providers in model_kwargs must be a list of names, got 3"),
    ],
)
def test_options_of_other_types_are_named(options: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        SparseEncoder(str(exported_folder()), backend="onnx", model_kwargs=options)


def test_an_index_of_two_axes_is_an_index_error() -> None:
    rows = ArrayEmbeddings.from_dense(np.eye(3, dtype=np.float32))
    for index in (np.array([[0, 1]]), [[0, 1]]):
        with pytest.raises(IndexError, match=r"expected integers or a mask of length 3, got int64 of shape \(1, 2\)"):
            rows[index]


def test_a_model_saved_over_another_is_not_served_by_its_graph(copy: Path, tmp_path: Path) -> None:
    other = SparseEncoder(str(write_masked_language_model(tmp_path / "other", seed=9)), device="cpu")
    other.save_pretrained(str(copy))
    with pytest.raises(FileNotFoundError, match="has no ONNX graph"):
        SparseEncoder(str(copy), backend="onnx", model_kwargs={"export": False})
