"""Worker processes of served models: the same rows, no torch, and what cannot be sent is refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from process_helpers import run_python
from serving_helpers import TEXTS, exported_folder

from sparse_encoder import SparseEncoder
from sparse_encoder.encoding.pool import RemoteTracebackError
from sparse_encoder.serving import OnnxSparseEncoder
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
    assert default_devices(served) == ["cpu"] * 4


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
