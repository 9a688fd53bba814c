"""A served model written to another folder as it is served: files, graphs and settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_encoder.checkpoint import write_text
from sparse_encoder.checkpoint.hub_card import README, named_card
from sparse_encoder.serving.copying import copied_folder, is_folder_of, place_graphs, sessions_of
from sparse_encoder.settings import SETTINGS_FILE, rewrite_settings

if TYPE_CHECKING:
    from sparse_encoder.serving.encoder import OnnxSparseEncoder


def save_served(
    model: OnnxSparseEncoder, folder: Path, *, with_card: bool = True, model_name: str | None = None
) -> None:
    """Write a model's folder with the graphs that it runs, under their names, and the settings that it has now.

    Args:
        model: The model.
        folder: The folder; its own stays as it is but for the settings, and graphs that were made for this model.
        with_card: Whether the README comes along.
        model_name: What it is to call the model if it has no name for it; of the model's own folder it stays.

    Raises:
        ValueError: If the file of a graph is gone.
    """
    sessions = sessions_of(model).values()
    if gone := [session.path for session in sessions if not session.path.exists()]:
        raise ValueError(
            f"{gone[0]} is gone; SparseEncoder({str(model.folder)!r}).export_onnx(folder) writes model and graph"
        )
    if is_folder_of(model, folder):
        if model.graph_root != model.folder:
            place_graphs(model)
        _write_settings(model, folder)
        return
    graphs = {os.path.relpath(file, model.graph_root): file for session in sessions for file in session.files}
    with copied_folder(model.folder, folder, graphs, left_out=() if with_card else (README,)) as stage:
        _write_settings(model, stage)
        if model_name is not None and (stage / README).exists():
            write_text(stage / README, named_card((stage / README).read_text(encoding="utf-8"), model_name))


def _write_settings(model: OnnxSparseEncoder, folder: Path) -> None:
    """Write what may have changed since the model was opened; a plain checkpoint has no place for it."""
    if (folder / SETTINGS_FILE).exists():
        rewrite_settings(folder, model.settings)
