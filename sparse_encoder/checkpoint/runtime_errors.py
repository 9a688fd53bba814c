"""What onnxruntime raises about a graph, which is a file like others; the package itself is given."""

from __future__ import annotations

from types import ModuleType


def runtime_errors(package: ModuleType) -> tuple[type[Exception], ...]:
    """Return what onnxruntime raises; the last where a damaged graph has names that are no UTF-8."""
    state = package.capi.onnxruntime_pybind11_state
    kinds = [getattr(state, name) for name in dir(state)]
    own = (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception))
    return RuntimeError, *own, UnicodeDecodeError
