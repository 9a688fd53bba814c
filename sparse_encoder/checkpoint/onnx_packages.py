"""The packages of the extra ``onnx``, imported when they are needed, and onnxruntime opened on a graph, quietly."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
CPU = "CPUExecutionProvider"
_ERRORS_ONLY = 3
_SHOWN = 300


def require(name: str, purpose: str) -> ModuleType:
    """Import a module of one of :data:`PACKAGES`.

    Args:
        name: Of the package, or of a module in it.
        purpose: What it is needed for; an error begins with it.

    Raises:
        ImportError: If it is not installed; says how to install it.
    """
    try:
        return import_module(name)
    except ImportError as reason:
        package = str(reason.name or name).partition(".")[0]
        raise ImportError(f"{purpose} needs {package}: pip install 'sparse-encoder[onnx]'") from reason


def quiet_options(onnxruntime: ModuleType) -> Any:  # noqa: ANN401 - SessionOptions of a package that may be missing
    """Return options of a session that tells nothing but errors.

    Args:
        onnxruntime: The package.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    return options


def open_graph(
    onnxruntime: ModuleType,
    path: Path,
    *,
    options: Any = None,  # noqa: ANN401 - SessionOptions
    providers: list[Any] | None = None,  # Any: names, or pairs of a name and options
) -> Any:  # noqa: ANN401 - an InferenceSession
    """Open a graph; what that raises is in :func:`runtime_errors`.

    Args:
        onnxruntime: The package.
        path: The graph.
        options: Of the session; ``None`` for :func:`quiet_options`.
        providers: What runs it; ``None`` for the CPU.
    """
    return onnxruntime.InferenceSession(
        str(path),
        quiet_options(onnxruntime) if options is None else options,
        providers=[CPU] if providers is None else providers,
        enable_fallback=0,  # a second try on the CPU would print, and fail the same way
    )


def runtime_errors(onnxruntime: ModuleType) -> tuple[type[Exception], ...]:
    """Return what onnxruntime raises; the last where a damaged graph has names that are no UTF-8.

    Args:
        onnxruntime: The package.
    """
    state = onnxruntime.capi.onnxruntime_pybind11_state
    kinds = [getattr(state, name) for name in dir(state)]
    own = (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception))
    return RuntimeError, *own, UnicodeDecodeError


def first_line(reason: BaseException) -> str:
    """Return the first line of an error, of which onnxruntime's have many; its type if it says nothing."""
    return (str(reason).splitlines() or [type(reason).__name__])[0][:_SHOWN]
