"""What machine this is, as the names of graphs in 8 bits say it, and whether it can run a graph. Knows no onnx."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.checkpoint.graph_names import MACHINE

CONFIGS = ("arm64", "avx2", "avx512", "avx512_vnni")
"""The machines that sentence-transformers names its files after."""
INTEGERS = "avx512_vnni"
"""The machine that multiplies bytes and adds them up in 32 bits; other x86 processors run over in 16."""
_X86 = ("x86_64", "amd64", "i386", "i686", "x86")
_EXACT = {"avx512_vnni", "avx_vnni"}


def this_machine() -> str:
    """Return which of :data:`CONFIGS` this machine is, as far as it can be told."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm64"
    flags = _flags()
    if INTEGERS in flags:
        return INTEGERS
    return "avx512" if "avx512f" in flags else "avx2"


def check_machine(metadata: Mapping[str, str], path: Path) -> None:
    """Check that a graph gives here what it gives on the machine that it was made for.

    Arm is let through, and a machine that does not tell what its processor can do, as any outside Linux.

    Args:
        metadata: What the graph says of itself.
        path: The graph.

    Raises:
        CheckpointError: If it has products of integers, and this is an x86 processor without VNNI.
    """
    if metadata.get(MACHINE) != INTEGERS or platform.machine().lower() not in _X86:
        return
    flags = _flags()
    if flags and not flags & _EXACT:
        name = this_machine()
        raise CheckpointError(
            f"its products of integers are for {INTEGERS!r}; on this machine, {name!r}, their sums run over 16 bits",
            path=path,
            field=MACHINE,
            hint=f"quantize_onnx(folder, quantization_config={name!r}) writes a graph for this machine",
        )


def _flags() -> frozenset[str]:
    """Return what the processor can do, in Linux's words; nothing where that cannot be read."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    return frozenset(told.partition("flags")[2].partition("\n")[0].split())
