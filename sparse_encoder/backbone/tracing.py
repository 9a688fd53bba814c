"""Whether a call is being run, or turned into a graph that must hold for other shapes too."""

from __future__ import annotations

import torch


def is_traced() -> bool:
    """Return whether ``torch.compile``, ``torch.export`` or ``torch.jit.trace`` looks on."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
