"""What ONNX graphs are called and call things: files, outputs and what they say of themselves. Knows no contents."""

from __future__ import annotations

import re
from pathlib import Path

GRAPH_FOLDER = "onnx"
"""Of the graphs in a model's folder."""
SUFFIX = ".onnx"
GRAPH_FILE, ENCODER_FILE, DECODER_FILE = "model.onnx", "encoder_model.onnx", "decoder_model.onnx"
DATA_SUFFIXES = ("_data", ".data")
"""What follows a graph's name in that of the file with its weights; the first is written here."""
GRAPH_PATTERNS = (f"*{SUFFIX}", *(f"*{SUFFIX}{data}" for data in DATA_SUFFIXES))
LARGEST_BYTES = 2 * 1024**3
"""What a protobuf file can hold; weights beyond it lie in a file beside the graph."""
DEFAULT_OPSET = 20
"""Version of the operators."""
EMBEDDING, INDICES, WEIGHTS = "sentence_embedding", "indices", "weights"
"""Outputs of a sparse encoder: all terms, or the largest."""
METADATA_PREFIX = "sparse_encoder."
TASK, NUM_DIMENSIONS, LONGEST, QUANTIZED, MACHINE = (
    f"{METADATA_PREFIX}{name}" for name in ("task", "num_dimensions", "longest", "quantized", "machine")
)
"""What a graph says of itself; that it is quantized only one in 8 bits, the machine only one that needs it."""
SPARSE_TASK, SCORES_TASK = "sparse-embedding", "masked-lm"
"""Tasks of the graphs that a sparse encoder is served by."""
_GRAPH = re.compile(r"(?:encoder_|decoder_)?model(?:_[A-Za-z0-9_.\-]+)?\.onnx(?:[_.]data)?")
"""As this library, sentence-transformers and optimum name them: ``model.onnx``, ``model_qint8_avx2.onnx``."""


def variant_name(suffix: str) -> str:
    """Return what a graph is called that lies beside :data:`GRAPH_FILE`, ``model_<suffix>.onnx``.

    Raises:
        TypeError: If the suffix is no string.
        ValueError: If the name would not be found again as a graph's.
    """
    if not isinstance(suffix, str):
        raise TypeError(f"file_suffix must be a string, got {suffix!r:.80}")
    name = f"model_{suffix}{SUFFIX}"
    if not _GRAPH.fullmatch(name):
        raise ValueError(f"file_suffix must be letters of ASCII, digits, '_', '.' and '-', got {suffix!r:.80}")
    return name


def data_name(graph: Path) -> str:
    """Return what the file with a graph's weights is called, as loaders of the hub look for it."""
    return f"{graph.name}{DATA_SUFFIXES[0]}"


def graph_of(path: Path) -> Path:
    """Return the graph that a file belongs to: itself, or the one whose weights are in it."""
    for data in DATA_SUFFIXES:
        if path.name.endswith(f"{SUFFIX}{data}"):
            return path.with_name(path.name.removesuffix(data))
    return path


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
