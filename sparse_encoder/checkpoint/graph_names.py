"""What ONNX graphs in a model's folder are called, so that those of other weights can go. Knows no contents."""

from __future__ import annotations

import re
from pathlib import Path

GRAPH_FOLDER = "onnx"
_GRAPH = re.compile(r"(?:encoder_|decoder_)?model(?:_[A-Za-z0-9_.\-]+)?\.onnx(?:_data)?")
"""As this library, sentence-transformers and optimum name them: ``model.onnx``, ``model_qint8_avx2.onnx``."""


def graph_files(folder: Path) -> list[Path]:
    """Return the graphs of a model and their data, a graph before its data: without it nobody reads the data.

    Args:
        folder: Of the model: in it, in ``onnx/`` and in ``onnx/<route>/``. Links are not followed.
    """
    graphs = folder / GRAPH_FOLDER
    inside = [] if graphs.is_symlink() else [*graphs.glob("*.onnx*"), *graphs.glob("*/*.onnx*")]
    return sorted(
        path
        for path in (*folder.glob("*.onnx*"), *inside)
        if _GRAPH.fullmatch(path.name) and not path.parent.is_symlink() and (path.is_symlink() or path.is_file())
    )
