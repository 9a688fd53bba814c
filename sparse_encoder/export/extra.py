"""The packages that only this room needs, imported when they are."""

from __future__ import annotations

import importlib
from types import ModuleType

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def require(name: str) -> ModuleType:
    """Import one of :data:`PACKAGES`.

    Args:
        name: Of the package.

    Raises:
        ImportError: If it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as reason:
        raise ImportError(f"ONNX export needs {name}: pip install 'sparse-encoder[onnx]'") from reason
