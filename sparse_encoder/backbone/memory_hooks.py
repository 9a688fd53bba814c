"""How much memory each module's forward pass leaves behind: a rough tool, for looking, not for accounting.

On a CPU it is the resident memory of the process, which other threads and the allocator move too; on an accelerator
the bytes that torch has allocated there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import nn

from sparse_encoder.backbone.devices import device_of

DIFFERENCE, BEFORE, AFTER = "mem_rss_diff", "mem_rss_pre_forward", "mem_rss_post_forward"
"""Attributes of every hooked module, in bytes; the first adds up over forward passes."""


def add_memory_hooks(model: nn.Module) -> None:
    """Measure each module's forward pass from now on; a second call changes nothing.

    Args:
        model: It and all modules in it get the three attributes.
    """
    for module in model.modules():
        if _note_before not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_note_before)
            module.register_forward_hook(_note_after)
    reset_memory_hooks_state(model)


def reset_memory_hooks_state(model: nn.Module) -> None:
    """Set the three attributes of every module to zero."""
    for module in model.modules():
        for name in (DIFFERENCE, BEFORE, AFTER):
            setattr(module, name, 0)


def memory_in_use(device: torch.device) -> int:
    """Return bytes: those of torch on an accelerator, else the resident memory of the process.

    That is read by ``psutil`` if it is installed, else from ``/proc``, else it is the largest it has been so far.
    """
    if device.type in ("cuda", "xpu"):
        return int(torch.get_device_module(device).memory_allocated(device))
    try:
        import psutil
    except ImportError:
        return _resident_bytes()
    return int(psutil.Process().memory_info().rss)


def _resident_bytes() -> int:
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _note_before(module: nn.Module, _inputs: object) -> None:
    setattr(module, BEFORE, memory_in_use(device_of(module)))


def _note_after(module: nn.Module, _inputs: object, _output: object) -> None:
    now = memory_in_use(device_of(module))
    setattr(module, AFTER, now)
    setattr(module, DIFFERENCE, getattr(module, DIFFERENCE) + now - getattr(module, BEFORE))
