"""A served model into another folder, with the graphs that it runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sparse_encoder.checkpoint import staged_folder
from sparse_encoder.checkpoint.graph_names import GRAPH_FILE, GRAPH_FOLDER, GRAPH_PATTERNS, QUANTIZED
from sparse_encoder.serving.encoder import OnnxSparseEncoder
from sparse_encoder.serving.onnx_file import digest_of
from sparse_encoder.serving.session import GraphSession

LEFT_OUT = (*GRAPH_PATTERNS, ".tmp-*", ".trash-*", ".git", ".cache", "checkpoint-*")
"""Graphs are copied one by one; the others are no part of a model."""


def sessions_of(model: OnnxSparseEncoder) -> dict[str | None, GraphSession]:
    """Return the graph of each route that has one, by the route's name."""
    return {name: route.session for name, route in model.routes.items() if route.session is not None}


def is_folder_of(model: OnnxSparseEncoder, folder: Path) -> bool:
    """Return whether a folder is the one that the model was opened from."""
    return folder.exists() and os.path.samefile(folder, model.folder)


@contextmanager
def copied_folder(
    source: Path, target: Path, graphs: Mapping[str, Path], *, left_out: Sequence[str] = ()
) -> Iterator[Path]:
    """Copy a model's folder, whole or not at all.

    Args:
        source: The folder.
        target: What was there is replaced.
        graphs: The files of graphs by their places in the copy; others are not copied.
        left_out: Patterns of further files that stay behind.

    Yields:
        The copy before it is put in place, for changes.
    """
    with staged_folder(target, replaces_adapters=True) as stage:
        shutil.copytree(source, stage, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*LEFT_OUT, *left_out))
        for name, file in graphs.items():
            place = stage / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        yield stage


def place_graphs(model: OnnxSparseEncoder) -> None:
    """Put graphs that were exported when a model was opened into its own folder, where they replace what is there."""
    from sparse_encoder.export.placing import staged_graphs  # those who exported have what it needs

    with staged_graphs(model.folder) as stage:
        shutil.copytree(model.graph_root / GRAPH_FOLDER, stage / GRAPH_FOLDER)


def copy_served(model: OnnxSparseEncoder, folder: Path) -> None:
    """Let a folder hold a served model with the graphs that it runs, as ``onnx/model.onnx`` or one for each route.

    A model that was exported when it was opened, in another process, is exported again, with torch.

    Args:
        model: The model.
        folder: What was there is replaced; nothing is done if it is the model's own.

    Raises:
        ValueError: If a graph is in 8 bits, or in the model's own folder another than ``onnx/model.onnx``.
    """
    sessions = sessions_of(model)
    for session in sessions.values():
        if QUANTIZED in session.metadata:
            raise ValueError(f"{session.path} is in 8 bits already; open the model without file_name")
    if not all(session.path.exists() for session in sessions.values()):
        from sparse_encoder.model import SparseEncoder

        SparseEncoder(str(model.folder), device="cpu", local_files_only=True).export_onnx(folder)
    elif is_folder_of(model, folder):
        if model.graph_root != model.folder:
            place_graphs(model)
        _check_graphs(folder, sessions)
    else:
        _copy(model.folder, folder, sessions)


def _check_graphs(folder: Path, sessions: dict[str | None, GraphSession]) -> None:
    """Check that the folder's graphs are those that the model runs."""
    for name, session in sessions.items():
        usual = folder / GRAPH_FOLDER / (name or "") / GRAPH_FILE
        if not usual.exists() or digest_of([usual]) != digest_of([session.path]):
            raise ValueError(f"the model runs {session.path}, which is not {usual}; write to another folder")


def _copy(source: Path, target: Path, sessions: Mapping[str | None, GraphSession]) -> None:
    graphs: dict[str, Path] = {}
    for name, session in sessions.items():
        place = os.path.join(GRAPH_FOLDER, name or "")
        graphs[os.path.join(place, GRAPH_FILE)] = session.path
        for data in session.files[1:]:  # the graph names them by their place beside it
            graphs[os.path.join(place, os.path.relpath(data, session.path.parent))] = data
    with copied_folder(source, target, graphs):
        pass
