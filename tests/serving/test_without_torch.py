"""What a process without torch can do beside encoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from serving_helpers import exported_folder, run_without_torch

from sparse_encoder import SparseIndex
from sparse_encoder.embeddings_arrays import ArrayEmbeddings

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

INDEX = """
from sparse_encoder import SparseIndex
from sparse_encoder.embeddings_arrays import ArrayEmbeddings

for memory_map in (True, False):
    index = SparseIndex.load(sys.argv[1], memory_map=memory_map)
    query = ArrayEmbeddings.from_dense(__import__("numpy").array([[0, 1, 2.0]], dtype="float32"))
    assert [(hit.id, hit.score) for hit in index.search(query, 2)[0]] == [("b", 7.0), ("a", 1.0)]
SparseIndex.build(query, ids=["z"]).save(sys.argv[2])
print("torch" in sys.modules)
"""


def test_an_index_is_loaded_searched_built_and_saved(tmp_path: Path) -> None:
    rows = ArrayEmbeddings.from_dense(np.array([[0, 1, 0], [5, 1, 3]], dtype=np.float32))
    SparseIndex.build(rows, ids=["a", "b"]).save(tmp_path / "index")
    assert run_without_torch(INDEX, str(tmp_path / "index"), str(tmp_path / "other")).strip() == "False"
    assert SparseIndex.load(tmp_path / "other").search(rows, 1)[0][0].id == "z"


NAMES = """
import numpy as np
from sparse_encoder import LoggingHandler, SimilarityFunction, SparseEmbeddings, SparseEncoder, resolve_ids
from sparse_encoder.embeddings_arrays import ArrayEmbeddings
from sparse_encoder.util import LoggingHandler as Same

assert Same is LoggingHandler and SimilarityFunction("dot") is SimilarityFunction.DOT
rows = ArrayEmbeddings.from_dense(np.array([[0, 1, -2.0]], dtype="float32"))
assert isinstance(rows, SparseEmbeddings) and isinstance(rows[0], SparseEmbeddings)
for found, expected in ((rows * 2, [0, 2, -4]), (2 * rows[0], [0, 2, -4]), (rows / 2, [0, 0.5, -1])):
    assert np.array_equal(np.ravel(found.numpy()), expected) and found.arrays.values.dtype == "float32"
assert (-rows).to_list_of_dicts() == [{1: -1.0, 2: 2.0}] and abs(rows).to_list_of_dicts() == [{1: 1.0, 2: 2.0}]
model = SparseEncoder(sys.argv[1], backend="onnx")
for options in ({"convert_to_tensor": True}, {"convert_to_sparse_tensor": False}):
    try:
        model.encode("rain", **options)
    except ImportError as reason:
        print(reason)
"""


def test_names_numbers_and_errors() -> None:
    told = run_without_torch(NAMES, str(exported_folder())).splitlines()
    assert [line.split(" gives ")[0] for line in told] == ["convert_to_tensor=True", "convert_to_sparse_tensor=False"]
    assert all("pip install torch" in line for line in told)
