"""The packages that only this room needs."""

from __future__ import annotations

from types import ModuleType

from sparse_encoder.checkpoint import onnx_packages


def require(name: str) -> ModuleType:
    """Import a package of the extra.

    Args:
        name: Of the package.

    Raises:
        ImportError: If it is not installed; says how to install it.
    """
    return onnx_packages.require(name, "ONNX export")
