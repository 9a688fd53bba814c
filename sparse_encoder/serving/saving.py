"""A served model written to another folder as it is served: files, graphs and settings."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_encoder.checkpoint import read_json_object, staged_folder, write_json
from sparse_encoder.serving.copying import LEFT_OUT
from sparse_encoder.settings import SETTINGS_FILE

if TYPE_CHECKING:
    from sparse_encoder.serving.encoder import OnnxSparseEncoder


def save_served(model: OnnxSparseEncoder, folder: Path, *, with_card: bool = True) -> None:
    """Write a model's folder with the graphs that it runs, under their names, and the settings that it has now.

    Args:
        model: The model.
        folder: The folder; its own stays as it is but for the settings.
        with_card: Whether the README comes along.

    Raises:
        ValueError: If the graph was made when the model was opened, so that there is no file of it.
    """
    sessions = {name: route.session for name, route in model.routes.items() if route.session is not None}
    if gone := [session.path for session in sessions.values() if not session.path.exists()]:
        raise ValueError(
            f"{gone[0]} was made when the model was opened and is gone; SparseEncoder({str(model.folder)!r})"
            ".export_onnx(folder) writes model and graph"
        )
    if folder.exists() and os.path.samefile(folder, model.folder):
        _write_settings(model, folder)
        return
    left_out = LEFT_OUT if with_card else (*LEFT_OUT, "README.md")
    with staged_folder(folder, replaces_adapters=True) as stage:
        shutil.copytree(model.folder, stage, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*left_out))
        for session in sessions.values():
            for file in session.files:
                place = stage / os.path.relpath(file, model.folder)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)
        _write_settings(model, stage)


def _write_settings(model: OnnxSparseEncoder, folder: Path) -> None:
    """Write what may have changed since the model was opened; a plain checkpoint has no place for it."""
    path = folder / SETTINGS_FILE
    if not path.exists():
        return
    values = read_json_object(path)
    changed = {
        "prompts": dict(model.prompts),
        "default_prompt_name": model.default_prompt_name,
        "similarity_fn_name": model.similarity_fn_name,
        "max_active_dims": model.max_active_dims,
    }
    write_json(path, {**values, **{name: value for name, value in changed.items() if value is not None}})
