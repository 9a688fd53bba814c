"""Graphs on disk: written beside their place, looked at, and moved there; never a graph with another's data."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparse_encoder.checkpoint import folder_lock
from sparse_encoder.checkpoint.atomic import make_parents, sync_path, sync_tree, temporary_name
from sparse_encoder.checkpoint.graph_names import GRAPH_FOLDER, LARGEST_BYTES, SUFFIX, data_name, graph_files, graph_of
from sparse_encoder.checkpoint.left_over import remove_left_over
from sparse_encoder.export.extra import require

RESERVED_BYTES = 64 * 1024**2
"""Of what a file can hold, for all that is no weight."""


@contextmanager
def staged_graphs(folder: Path) -> Iterator[Path]:
    """Write graphs out of sight, then put them in place, each with its data if it has any.

    A crash leaves of each the old graph, the new one, or none; an error leaves the old ones. Graphs in ``onnx/`` take
    the place of all that are there: of those in 8 bits, which were made of the old ones, and of routes. What earlier
    calls that were killed left in the folder is removed.

    Args:
        folder: Where they are to be; made if it is not there.

    Yields:
        An empty folder, whose files and folders get the names they have in it.

    Raises:
        NotADirectoryError: If ``folder`` is a file.
        IsADirectoryError: If a graph would take the place of a folder.
    """
    folder = Path(os.path.abspath(folder))
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is to be a folder and is a file")
    remove_left_over(folder)
    stage = folder / temporary_name()
    made = make_parents(stage)
    try:
        stage.mkdir()
        yield stage
        sync_tree(stage)
        graphs = sorted(path.relative_to(stage) for path in stage.rglob(f"*{SUFFIX}"))
        for name in graphs:
            if (folder / name).is_dir():
                raise IsADirectoryError(f"{folder / name} is to be a file and is a folder")
        with folder_lock(folder, exclusive=True):
            _remove_stale(folder, graphs)
            for name in graphs:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                _move(stage / name, folder / name)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        for parent in made:
            if not any(parent.iterdir()):
                parent.rmdir()
        raise
    shutil.rmtree(stage)


def _remove_stale(folder: Path, new: list[Path]) -> None:
    """Take away the graphs of a model's folder that the new ones do not replace."""
    if not any(name.parts[0] == GRAPH_FOLDER for name in new):
        return
    replaced = {folder / name for name in new} | {(folder / name).with_name(data_name(name)) for name in new}
    for path in graph_files(folder):
        if path.parent != folder and path not in replaced:
            graph_of(path).unlink(missing_ok=True)  # nobody is to look for data that is gone
            path.unlink(missing_ok=True)


def _move(staged: Path, path: Path) -> None:
    """Put a graph into place, with its data or without."""
    new_data, data = staged.with_name(data_name(staged)), path.with_name(data_name(path))
    if new_data.exists():
        if data.exists():
            path.unlink(missing_ok=True)  # nobody is to read the old graph with the new data
            sync_path(path.parent)
        os.replace(new_data, data)
        os.replace(staged, path)
    else:
        os.replace(staged, path)
        data.unlink(missing_ok=True)
    sync_path(path.parent)


def save_model(model: Any, path: Path, *, external_data: bool | None) -> None:  # noqa: ANN401 - of onnx_ir
    """Write a graph.

    Args:
        model: An ``onnx_ir.Model``.
        path: Of the graph.
        external_data: Whether its weights lie in a file beside it; None: if they must.

    Raises:
        ValueError: If they must and ``external_data`` is false.
    """
    require("onnxscript")
    import onnx_ir

    num_bytes = sum(
        each.const_value.nbytes for each in model.graph.initializers.values() if each.const_value is not None
    )
    must = num_bytes + RESERVED_BYTES > LARGEST_BYTES
    if must and external_data is False:
        raise ValueError(f"external_data must not be False for weights of {num_bytes} bytes, more than a file can hold")
    outside = must if external_data is None else external_data
    onnx_ir.save(model, path, external_data=data_name(path) if outside else None)
