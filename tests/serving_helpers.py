"""A small model with its graph, exported once per process of tests; Python without torch; damaged graphs."""

from __future__ import annotations

import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from model_helpers import mixed_texts, write_masked_language_model
from process_helpers import run_python

TEXTS = [*mixed_texts(12), "", "rain"]

WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "accelerate"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
"""


@lru_cache(maxsize=1)
def exported_folder() -> Path:
    """Write a SPLADE model with ``onnx/model.onnx``; leave it as it is, or work on a copy."""
    from sparse_encoder.export import export_onnx
    from sparse_encoder.model import SparseEncoder

    root = Path(tempfile.mkdtemp(prefix="serving-tests-"))
    (root / "plain").mkdir()
    model = SparseEncoder(str(write_masked_language_model(root / "plain")), device="cpu")
    model.prompts = {"query": "query: ", "document": "", "title": "rain "}
    model.similarity_fn_name = "cosine"
    folder = root / "model"
    model.save_pretrained(str(folder))
    export_onnx(model, folder)
    return folder


def traced_before(*_: object) -> object:
    """Return the graph of :func:`exported_folder` in memory, instead of tracing the same weights again."""
    import onnx_ir

    return onnx_ir.load(exported_folder() / "onnx" / "model.onnx")


def copy_of(folder: Path, target: Path) -> Path:
    """Copy a model that a test changes."""
    shutil.copytree(folder, target)
    return target


def run_without_torch(program: str, *arguments: str) -> str:
    """Run a program in a fresh process in which torch cannot be imported; returns what it prints."""
    return run_python(WITHOUT_TORCH + program, *arguments)
