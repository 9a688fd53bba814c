"""A served model into another folder, with the graphs that it runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sparse_encoder.checkpoint import staged_folder
from sparse_encoder.checkpoint.graph_names import GRAPH_FILE, GRAPH_FOLDER, GRAPH_PATTERNS, QUANTIZED
from sparse_encoder.serving.encoder import OnnxSparseEncoder
from sparse_encoder.serving.onnx_file import digest_of
from sparse_encoder.serving.session import GraphSession

LEFT_OUT = (*GRAPH_PATTERNS, ".tmp-*", ".trash-*", ".git", ".cache", "checkpoint-*")
"""Graphs are copied one by one; the others are no part of a model."""


def copy_served(model: OnnxSparseEncoder, folder: Path) -> None:
    """Let a folder hold a served model with the graphs that it runs, as ``onnx/model.onnx`` or one for each route.

    A model that was exported when it was opened is exported again, with torch.

    Args:
        model: The model.
        folder: What was there is replaced; nothing is done if it is the model's own.

    Raises:
        ValueError: If a graph is in 8 bits, or in the model's own folder another than ``onnx/model.onnx``.
    """
    sessions = {name: route.session for name, route in model.routes.items() if route.session is not None}
    for session in sessions.values():
        if QUANTIZED in session.metadata:
            raise ValueError(f"{session.path} is in 8 bits already; open the model without file_name")
    if not all(session.path.exists() for session in sessions.values()):
        from sparse_encoder.model import SparseEncoder

        SparseEncoder(str(model.folder), device="cpu", local_files_only=True).export_onnx(folder)
    elif folder.exists() and os.path.samefile(folder, model.folder):
        _check_graphs(folder, sessions)
    else:
        _copy(model.folder, folder, sessions)


def _check_graphs(folder: Path, sessions: dict[str | None, GraphSession]) -> None:
    """Check that the folder's graphs are those that the model runs."""
    for name, session in sessions.items():
        usual = folder / GRAPH_FOLDER / (name or "") / GRAPH_FILE
        if not usual.exists() or digest_of([usual]) != digest_of([session.path]):
            raise ValueError(f"the model runs {session.path}, which is not {usual}; write to another folder")


def _copy(source: Path, target: Path, sessions: dict[str | None, GraphSession]) -> None:
    with staged_folder(target, replaces_adapters=True) as stage:
        shutil.copytree(source, stage, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
        for name, session in sessions.items():
            place = stage / GRAPH_FOLDER / (name or "")
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(session.path, place / GRAPH_FILE)
            for data in session.files[1:]:  # the graph names them by their place beside it
                beside = place / os.path.relpath(data, session.path.parent)
                beside.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(data, beside)
