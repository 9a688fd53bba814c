"""Graphs that are made of a model's graphs: written beside them, or uploaded alone. Knows not how they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sparse_encoder.checkpoint import staged_folder
from sparse_encoder.checkpoint.graph_names import GRAPH_FOLDER
from sparse_encoder.checkpoint.hub_push import HubTarget
from sparse_encoder.serving.copying import copy_served
from sparse_encoder.serving.encoder import OnnxSparseEncoder
from sparse_encoder.serving.publishing import push_graphs
from sparse_encoder.serving.quality import QuantizationReport
from sparse_encoder.serving.session import try_graph


def write_beside(folder: Path, graphs: Iterable[Path], name: str, write: Callable[[Path, Path], None]) -> None:
    """Write a variant of each graph beside it; all of them are opened first, and are there together or not at all.

    Args:
        folder: Of the model.
        graphs: Those of its routes.
        name: What the file of each variant is called.
        write: Makes a variant, given the graph and the file to write.

    Raises:
        CheckpointError: If a variant cannot be opened.
    """
    place = folder / GRAPH_FOLDER
    with staged_folder(place) as stage:
        for graph in graphs:
            target = stage / graph.relative_to(place).with_name(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            write(graph, target)
            try_graph(target)


def export_variant(
    model: Any,  # noqa: ANN401 - a SparseEncoder of either backend
    write: Callable[[Path], QuantizationReport],
    *,
    model_name_or_path: str,
    push_to_hub: bool,
    create_pr: bool,
) -> QuantizationReport:
    """Put a model with its graphs into a folder and make variants there, or upload those alone.

    Args:
        model: A torch model, which is saved and exported; or one of ``backend="onnx"``, which is copied.
        write: Makes the variants in a model's folder.
        model_name_or_path: The folder; with ``push_to_hub`` the repository.
        push_to_hub: Whether to upload; nothing stays here then, and the report has no ``paths``.
        create_pr: Open a pull request instead of pushing.

    Raises:
        TypeError: If the model is none of these.
        ValueError: If there is ``create_pr`` without ``push_to_hub``.
    """
    if create_pr and not push_to_hub:
        raise ValueError("create_pr=True proposes an upload, and needs push_to_hub=True")
    if not push_to_hub:
        return write(_put(model, Path(model_name_or_path).expanduser()))
    with TemporaryDirectory() as scratch:
        folder = _put(model, Path(scratch) / "model")
        report = write(folder)
        push_graphs(folder, report.paths, HubTarget(repo_id=model_name_or_path, create_pr=create_pr))
    return replace(report, paths=())


def _put(model: Any, folder: Path) -> Path:  # noqa: ANN401 - as above
    """Put a model with its graphs into a folder, and return the folder."""
    if isinstance(model, OnnxSparseEncoder):
        copy_served(model, folder)
    elif hasattr(model, "export_onnx"):
        model.export_onnx(folder)
    else:
        raise TypeError(f"model must be a SparseEncoder, got a {type(model).__name__}")
    return folder
