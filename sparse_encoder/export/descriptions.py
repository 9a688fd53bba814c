"""Which graphs a model has. Knows the kinds of models, and nothing of files."""

from __future__ import annotations

from torch import nn

from sparse_encoder.encoding.sequence import ModuleSequence
from sparse_encoder.export.graph import Graph
from sparse_encoder.export.sparse_encoders import sparse_graphs

MODEL_FILE = "model.onnx"
SPARSE_TASK = "sparse-embedding"


def describe(model: nn.Module, task: str | None, top_k: int | None) -> dict[str, Graph]:
    """Describe the graphs of a model.

    Args:
        model: The model.
        task: What is asked of it; None: what its head is for.
        top_k: For sparse encoders: how many weights of each text are returned.

    Returns:
        The graphs by their places in a folder.

    Raises:
        TypeError: If it is no model that can be exported.
        ValueError: If it cannot do the task.
    """
    if isinstance(model, ModuleSequence):
        if task not in (None, SPARSE_TASK):
            raise ValueError(f"task must be {SPARSE_TASK!r} for a sparse encoder, got {task!r}")
        graphs = sparse_graphs(model, top_k)
        return {MODEL_FILE if route is None else f"{route}/{MODEL_FILE}": graph for route, graph in graphs.items()}
    raise TypeError(f"model must be a SparseEncoder or a model of the library, got {type(model).__name__}")
