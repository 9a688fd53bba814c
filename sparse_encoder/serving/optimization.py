"""Graphs that onnxruntime has optimised, written down, so that it need not do it again whenever it opens them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sparse_encoder.checkpoint.graph_names import data_name, variant_name
from sparse_encoder.checkpoint.onnx_packages import quiet_options
from sparse_encoder.serving.onnx_file import check_onnx_file
from sparse_encoder.serving.quality import SENTENCES, QuantizationReport, compare_graphs, graphs_of
from sparse_encoder.serving.session import onnxruntime, try_graph
from sparse_encoder.serving.variants import export_variant, write_beside

LEVELS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "O1": ("ORT_ENABLE_BASIC", {}),
    "O2": ("ORT_ENABLE_EXTENDED", {}),
    "O3": ("ORT_ENABLE_EXTENDED", {"optimization.enable_gelu_approximation": "1"}),
}
"""onnxruntime's name of each level of sentence-transformers, and what else is set: the first removes what computes
nothing new, the second puts operators together, the third computes GELU by its approximation, too."""
_DATA_NAME = "session.optimized_model_external_initializers_file_name"
_DATA_FROM = "session.optimized_model_external_initializers_min_size_in_bytes"
_SMALLEST_DATA = "1024"


def export_optimized_onnx_model(  # house: peer signature
    model: Any,  # noqa: ANN401 - a SparseEncoder of either backend
    optimization_config: str,
    model_name_or_path: str,
    push_to_hub: bool = False,
    create_pr: bool = False,
    file_suffix: str | None = None,
) -> QuantizationReport:
    """Write a model's graph as onnxruntime optimises it; by the name and signature of sentence-transformers.

    A graph that is not optimised is optimised whenever it is opened, up to ``"O2"`` and beyond; so this saves work when
    it is opened, and while encoding only with ``"O3"``. The file is for the onnxruntime that wrote it, and newer ones.

    Args:
        model: A torch model, which is saved and exported into the folder; or one of ``backend="onnx"``, which is
            copied there with its graphs, unless it is the model of that folder. What was there is replaced.
        optimization_config: One of :data:`LEVELS`; the file is ``onnx/model_O3.onnx``.
        model_name_or_path: The folder; with ``push_to_hub`` the repository, which gets the new graph alone.
        push_to_hub: Whether to upload the graph; nothing stays here then.
        create_pr: Open a pull request instead of pushing.
        file_suffix: What follows ``model_`` in the file's name instead.

    Returns:
        What has changed; sentence-transformers returns nothing. Of an uploaded graph there are no ``paths``.

    Raises:
        CheckpointError: If a graph is damaged, or its change cannot be opened; then it is not written.
        FileNotFoundError: If no route of the model has a graph.
        TypeError: If the model is none of these, or the suffix no string.
        ValueError: If the level is unknown, the suffix has other letters than :func:`quantize_onnx` takes, there is
            ``create_pr`` without ``push_to_hub``, or the model's graph is in 8 bits.
    """
    if optimization_config not in LEVELS:
        hint = "; model.export_onnx(folder, dtype='float16') writes numbers of 16 bits" * (optimization_config == "O4")
        raise ValueError(f"optimization_config must be one of {list(LEVELS)}, got {optimization_config!r:.80}{hint}")
    name = variant_name(optimization_config if file_suffix is None else file_suffix)
    return export_variant(
        model,
        partial(_optimize, level=optimization_config, name=name),
        model_name_or_path=model_name_or_path,
        push_to_hub=push_to_hub,
        create_pr=create_pr,
    )


def _optimize(folder: Path, *, level: str, name: str) -> QuantizationReport:
    """Write the optimised graphs of a model's folder beside the others."""
    graphs = graphs_of(folder)
    write_beside(folder, graphs.values(), name, lambda graph, target: _write(graph, target, level))
    return compare_graphs(folder, graphs, name, texts=SENTENCES, evaluator=None)


def _write(graph: Path, target: Path, level: str) -> None:
    """Let onnxruntime open a graph, and write what it makes of it."""
    package = onnxruntime()
    options = quiet_options(package)
    kind, entries = LEVELS[level]
    options.graph_optimization_level = getattr(package.GraphOptimizationLevel, kind)
    options.optimized_model_filepath = str(target)
    if check_onnx_file(graph):
        entries = {**entries, _DATA_NAME: data_name(target), _DATA_FROM: _SMALLEST_DATA}
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    try_graph(graph, options=options)
