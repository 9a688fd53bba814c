"""Files that claim to be graphs: damaged, leading elsewhere, or graphs of something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_helpers import copy_of, exported_folder

from sparse_encoder import SparseEncoder
from sparse_encoder.checkpoint import CheckpointError, LoadError
from sparse_encoder.serving.onnx_file import check_onnx_file

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def write_graph(path: Path, inputs: list[str], outputs: dict[str, list[Any]], *, kind: int = 7) -> Path:
    """Write a graph whose outputs are constants of ones, and whose inputs are not used."""
    helper = onnx.helper
    nodes = [
        helper.make_node("Constant", [], [name], value=helper.make_tensor(name, 1, shape, np.ones(int(np.prod(shape)))))
        for name, shape in outputs.items()
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, ["batch", "sequence"]) for name in inputs],
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in outputs.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return copy_of(exported_folder(), tmp_path / "model")


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 64, b"not a graph at all", b"\x3a\xff\xff\xff\xff\x0f", b"\x08\x0a"]
)
def test_damaged_graphs_are_refused(copy: Path, content: bytes) -> None:
    path = copy / "onnx" / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        SparseEncoder(str(copy), backend="onnx")
    assert caught.value.path == str(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_cut_graphs_are_refused(copy: Path, share: float) -> None:
    path = copy / "onnx" / "model.onnx"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError):
        SparseEncoder(str(copy), backend="onnx")


def external(path: Path, location: str) -> Path:
    """Write a graph whose weight lies elsewhere."""
    tensor = onnx.helper.make_tensor("weight", 1, [2], [1.0, 2.0])
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    inner = onnx.helper.make_graph([], "inner", [], [], initializer=[tensor])
    node = onnx.helper.make_node("If", ["condition"], ["out"], then_branch=inner, else_branch=inner)
    path.write_bytes(onnx.helper.make_model(onnx.helper.make_graph([node], "outer", [], [])).SerializeToString())
    return path


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "C:\\secret", "a/../../secret", ""])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(CheckpointError, match="must be relative and stay in its folder"):
        check_onnx_file(external(tmp_path / "model.onnx", location))


def test_weights_beside_the_graph_are_named_or_missed(tmp_path: Path) -> None:
    path = external(tmp_path / "model.onnx", "model.onnx_data")
    with pytest.raises(CheckpointError, match="its weights are in 'model.onnx_data', which is not there"):
        check_onnx_file(path)
    (tmp_path / "model.onnx_data").write_bytes(b"\0" * 8)
    assert check_onnx_file(path) == [tmp_path / "model.onnx_data"]
    (tmp_path / "model.onnx_data").unlink()
    (tmp_path / "model.onnx_data").symlink_to("/etc/passwd")
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        check_onnx_file(path)


def test_links_out_of_the_folder_and_folders_are_refused(copy: Path, tmp_path: Path) -> None:
    path = copy / "onnx" / "model.onnx"
    path.rename(tmp_path / "elsewhere.onnx")
    path.symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(LoadError, match="leads out of the folder"):
        SparseEncoder(str(copy), backend="onnx")
    path.unlink()
    path.mkdir()
    with pytest.raises(LoadError, match="regular file"):
        SparseEncoder(str(copy), backend="onnx")


def test_graphs_of_something_else_are_refused(copy: Path) -> None:
    path = copy / "onnx" / "model.onnx"
    both = ["input_ids", "attention_mask"]
    write_graph(path, ["pixels"], {"sentence_embedding": [2, 88]})
    with pytest.raises(CheckpointError, match=r"has the inputs \['pixels'\]; those of a sparse encoder are"):
        SparseEncoder(str(copy), backend="onnx")
    write_graph(path, both, {"boxes": [2, 4]})
    with pytest.raises(CheckpointError, match=r"has the outputs \{'boxes': \[2, 4\]\}; those of a sparse encoder"):
        SparseEncoder(str(copy), backend="onnx")
    write_graph(path, both, {"sentence_embedding": [2, 88]}, kind=1)
    with pytest.raises(CheckpointError, match=r"must be integers \(batch, sequence\), it is tensor\(float\)"):
        SparseEncoder(str(copy), backend="onnx")
    write_graph(path, both, {"sentence_embedding": [2, 40]})
    with pytest.raises(LoadError, match="the tokenizer has 88 tokens, the model embeddings for 40 of them"):
        SparseEncoder(str(copy), backend="onnx")


def test_logits_of_other_exporters_are_pooled(copy: Path) -> None:
    path = copy / "onnx" / "model.onnx"
    write_graph(path, ["input_ids", "attention_mask"], {"logits": [1, 16, 88]}, kind=6)  # int32 ids
    row = SparseEncoder(str(copy), backend="onnx").encode("rain")
    assert np.allclose(row.numpy(), np.log1p(1.0))


def test_the_best_terms_alone_are_enough(copy: Path) -> None:
    path = copy / "onnx" / "model.onnx"
    write_graph(path, ["input_ids", "attention_mask"], {"weights": [1, 2], "indices": [1, 2]})
    model = onnx.load(path)
    model.graph.output[1].type.tensor_type.elem_type = 7
    model.graph.node[1].attribute[0].t.CopyFrom(onnx.helper.make_tensor("indices", 7, [1, 2], [40, 3]))
    model.graph.node[0].attribute[0].t.CopyFrom(onnx.helper.make_tensor("weights", 1, [1, 2], [2.5, 0.5]))
    onnx.helper.set_model_props(model, {"sparse_encoder.num_dimensions": "88", "sparse_encoder.top_k": "2"})
    onnx.save(model, path)
    served = SparseEncoder(str(copy), backend="onnx")
    assert served.encode("rain").to_dict() == {3: 0.5, 40: 2.5}
    assert served.encode("rain", max_active_dims=1).to_dict() == {40: 2.5}
    assert served.encode("rain").shape == (88,)
