"""What can go wrong with a graph; knows nothing of how it is made.

::

    SparseEncoderError
    └── ExportError (RuntimeError)          torch or onnx cannot make the graph
        └── OutputMismatchError (ValueError)    the graph computes something else than the model
"""

from __future__ import annotations

from sparse_encoder.checkpoint import SparseEncoderError


class ExportError(SparseEncoderError, RuntimeError):
    """A model cannot be written as a graph."""


class OutputMismatchError(ExportError, ValueError):
    """A graph gives other numbers, shapes or names than its model.

    Args:
        message: Which output of which batch, and by how much.
        difference: The largest one; NaN where shapes or names differ.
        hint: What to do about it.
    """

    def __init__(self, message: str, *, difference: float = float("nan"), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.difference = difference
