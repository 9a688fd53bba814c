"""Worker processes of served models: the same rows, no torch, and what cannot be sent is refused."""

from __future__ import annotations

import copy
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_helpers import write_masked_language_model
from process_helpers import run_python
from serving_helpers import TEXTS, copy_of, exported_folder, traced_before

from sparse_encoder import SparseEncoder
from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.encoding.pool import RemoteTracebackError
from sparse_encoder.serving import OnnxSparseEncoder, workers
from sparse_encoder.serving.workers import ServedPool, default_devices

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def served() -> OnnxSparseEncoder:
    return SparseEncoder(str(exported_folder()), backend="onnx", prompts={"query": "a "}, max_active_dims=7)


@pytest.fixture(scope="module")
def pool(served: OnnxSparseEncoder) -> Iterator[ServedPool]:
    with served.start_multi_process_pool(["cpu", "cpu"]) as workers:
        yield workers


@pytest.mark.parametrize(
    "options",
    [{}, {"chunk_size": 1}, {"chunk_size": 100, "max_active_dims": 3}, {"prompt": "stone "}, {"batch_size": 2}],
)
def test_workers_give_the_same_rows(served: OnnxSparseEncoder, pool: ServedPool, options: dict[str, Any]) -> None:
    alone = {name: value for name, value in options.items() if name != "chunk_size"}
    for encode in (served.encode_query, served.encode_document):
        rows = encode(TEXTS, pool=pool, **options)
        assert np.array_equal(rows.numpy(), encode(TEXTS, **alone).numpy())
    assert np.diff(rows.arrays.starts).max() == options.get("max_active_dims", 7)


def test_forms_are_those_without_workers(served: OnnxSparseEncoder, pool: ServedPool) -> None:
    assert served.encode("rain", pool=pool).to_dict() == served.encode("rain").to_dict()
    assert served.encode([], pool=pool).shape == served.encode([]).shape
    tensor = served.encode(TEXTS[:2], pool=pool, convert_to_tensor=True)
    assert tensor.is_sparse and tensor.shape == (2, served.get_embedding_dimension())
    listed = served.encode(TEXTS[:2], pool=pool, convert_to_tensor=False, convert_to_sparse_tensor=False)
    assert [row.shape for row in listed] == [(served.get_embedding_dimension(),)] * 2


def test_an_error_of_a_worker_is_raised_here_and_the_pool_lives_on(served: OnnxSparseEncoder, pool: ServedPool) -> None:
    with pytest.raises(ValueError, match="max_length must be at least 3") as caught:
        served.encode(TEXTS, pool=pool, processing_kwargs={"text": {"max_length": 1}})
    assert isinstance(caught.value.__cause__, RemoteTracebackError)
    assert served.encode(TEXTS[:2], pool=pool).shape[0] == 2


def test_what_no_worker_can_have_is_refused(served: OnnxSparseEncoder) -> None:
    with pytest.raises(ValueError, match="at least one device, got none"):
        served.start_multi_process_pool([])
    for devices in (["cpu", "mps"], ["nowhere"]):
        with pytest.raises(ValueError, match=f"device must be one of .*'cpu'.*got '{devices[-1]}'"):
            served.start_multi_process_pool(devices)
    options = {"session_options": onnxruntime.SessionOptions()}
    model = SparseEncoder(str(exported_folder()), backend="onnx", model_kwargs=options)
    with pytest.raises(ValueError, match="session_options in model_kwargs cannot be sent"):
        model.encode(TEXTS, device=["cpu"])
    with pytest.raises(TypeError, match="pool must come from start_multi_process_pool of a served model, got object"):
        served.encode(TEXTS, pool=object())
    with pytest.raises(ValueError, match="chunk_size must be a positive integer, got 0"):
        served.encode(TEXTS, chunk_size=0)
    with pytest.raises(ValueError, match="device must name at least one device.*got none"):
        served.encode(TEXTS, device=[])
    assert default_devices(served) == ["cpu"] * 4


def test_a_pool_is_of_the_model_and_has_its_devices(served: OnnxSparseEncoder, pool: ServedPool) -> None:
    with pytest.raises(ValueError, match=r"give pool or several devices, not both: .*got \['cpu'\]"):
        served.encode(TEXTS, pool=pool, device=["cpu"])
    assert pool.serves(served) and pool.serves(copy.deepcopy(served))


def test_a_worker_that_cannot_open_the_model_says_why(tmp_path: Path) -> None:
    model = SparseEncoder(str(copy_of(exported_folder(), tmp_path / "model")), backend="onnx")
    graph = tmp_path / "model" / "onnx" / "model.onnx"
    graph.write_bytes(b"another")
    with model.start_multi_process_pool(["cpu"]) as own, pytest.raises(CheckpointError, match="is no ONNX graph"):
        model.encode(TEXTS, pool=own)
    graph.unlink()
    with pytest.raises(FileNotFoundError, match=r"model.onnx is gone, which workers would open"):
        model.start_multi_process_pool(["cpu"])


def test_a_pool_keeps_the_graphs_that_were_made_for_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported_folder()  # once, truly
    monkeypatch.setattr("sparse_encoder.export.writing.trace", traced_before)  # of the same weights
    model = SparseEncoder(str(write_masked_language_model(tmp_path / "model")), backend="onnx")
    root, twin, recipe = model.graph_root, copy.deepcopy(model), model.recipe()
    expected = twin.encode(TEXTS).numpy()
    own = model.start_multi_process_pool(["cpu"])
    del model
    gc.collect()
    assert root.exists()
    assert np.array_equal(twin.encode(TEXTS, pool=own).numpy(), expected)
    own.stop()
    gc.collect()
    assert not root.exists()
    with pytest.raises(FileNotFoundError, match="the graphs of this model were exported .* and are gone"):
        twin.start_multi_process_pool(["cpu"])
    with pytest.raises(FileNotFoundError, match="the graphs of this model were exported .* and are gone"):
        workers._prepare("cpu", recipe, "cpu", 1)


def test_a_text_that_is_not_finite_is_named_by_its_place_in_the_call(pool: ServedPool, tmp_path: Path) -> None:
    import onnx

    folder = copy_of(exported_folder(), tmp_path / "model")
    graph = onnx.load(folder / "onnx" / "model.onnx")
    (positions,) = [each for each in graph.graph.initializer if "embeddings.position" in each.name]
    values = onnx.numpy_helper.to_array(positions).copy()
    values[20] = np.nan
    positions.CopyFrom(onnx.numpy_helper.from_array(values, positions.name))
    onnx.save(graph, folder / "onnx" / "model.onnx")
    model = SparseEncoder(str(folder), backend="onnx")
    texts = [*["rain"] * 4, "rain " * 30, "rain"]
    with pytest.raises(ValueError, match="pool has the workers of another model"):
        model.encode(texts, pool=pool)
    with model.start_multi_process_pool(["cpu"]) as own, pytest.raises(ValueError, match=r"texts\[4\] has weights"):
        model.encode(texts, pool=own, chunk_size=1)


PROGRAM = """
import sys
import numpy
from sparse_encoder import SparseEncoder

if __name__ == "__main__":
    model = SparseEncoder(sys.argv[1], backend="onnx")
    pool = model.start_multi_process_pool(["cpu"])
    rows = model.encode(["rain", "river"], pool=pool)
    model.stop_multi_process_pool(pool)
    alone = model.encode(["rain", "river"], device=["cpu"])
    print(numpy.array_equal(rows.numpy(), alone.numpy()), "torch" in sys.modules)
    print(pool["processes"])
"""


def test_workers_need_no_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('torch is blocked')")  # also for the workers
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    told = run_python(PROGRAM, str(exported_folder()), env={"PYTHONPATH": paths})
    assert told.split() == ["True", "False", "[]"]
