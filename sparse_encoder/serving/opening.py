"""From a folder to graphs that run: which file of a folder is taken, and what is exported where there is none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sparse_encoder.checkpoint import resolve_inside
from sparse_encoder.checkpoint.graph_names import GRAPH_FILE, GRAPH_FOLDER, SUFFIX
from sparse_encoder.serving.folder import ModelFolder, Route
from sparse_encoder.serving.options import BackendOptions, choose_providers
from sparse_encoder.serving.session import GraphSession, onnxruntime

logger = logging.getLogger(__name__)


def open_sessions(
    folder: Path, plan: ModelFolder, options: BackendOptions, device: object
) -> dict[str | None, GraphSession]:
    """Open the graph of each route that needs one.

    Args:
        folder: The model's folder.
        plan: Its routes.
        options: Which graphs, run by what.
        device: What the caller asks for, ``None`` for whatever there is.

    Returns:
        Them by the names of their routes.

    Raises:
        FileNotFoundError: If a graph is not there and may not be exported, or a file that was named is not there.
        CheckpointError: If a graph is damaged or none of a sparse encoder.
        ImportError: If onnxruntime, or for an export torch, is missing.
        ValueError: If there are several graphs and none is the first choice.
    """
    providers = choose_providers(onnxruntime(), options, device)
    routes = [route for route in plan.routes.values() if route.weights is None]
    if options.export is not True:
        found = {route.name: find_graph(folder, route.name, options) for route in routes}
        missing = [str(name) for name, path in found.items() if path is None]
        if not missing:
            paths = {name: path for name, path in found.items() if path is not None}
            return _open(paths, routes, options, providers)
        if options.export is False:
            raise FileNotFoundError(
                f"{folder} has no ONNX graph, and model_kwargs={{'export': False}} forbids to make one; "
                "SparseEncoder(folder).export_onnx(folder) writes it"
            )
    with TemporaryDirectory() as made:
        _export(folder, Path(made))
        paths = {route.name: _graph_folder(Path(made), route.name, GRAPH_FOLDER) / GRAPH_FILE for route in routes}
        sessions = _open(paths, routes, options, providers)
        for session in sessions.values():
            _ = session.digest  # while the file is there
        return sessions


def _open(
    paths: Mapping[str | None, Path], routes: list[Route], options: BackendOptions, providers: list[Any]
) -> dict[str | None, GraphSession]:
    return {
        route.name: GraphSession(
            paths[route.name], providers, session_options=options.session_options, pooling=route.pooling
        )
        for route in routes
    }


def _graph_folder(folder: Path, route: str | None, subfolder: str) -> Path:
    place = resolve_inside(folder, subfolder) if subfolder else folder
    return place if route is None else resolve_inside(place, route)


def find_graph(folder: Path, route: str | None, options: BackendOptions) -> Path | None:
    """Choose the graph of a route.

    It is the file that the caller names, in the folder of graphs or in the model's; else ``onnx/model.onnx``, else
    ``model.onnx``; else the only graph that there is. A route's graphs are in ``onnx/<route>/``.

    Args:
        folder: The model's folder.
        route: Name of the route, ``None`` in a model without routes.
        options: What the caller says.

    Returns:
        The file; ``None`` if there is no graph at all.

    Raises:
        FileNotFoundError: If the one that was named is not there; lists those that are.
        ValueError: If there are several and none has the usual name, or the name leads out of the folder.
    """
    place = _graph_folder(folder, route, options.subfolder)
    there = sorted({*place.glob(f"*{SUFFIX}"), *(folder.glob(f"*{SUFFIX}") if route is None else ())})
    if options.file_name is not None:
        return _named(folder, place, route, options, there)
    for path in (place / GRAPH_FILE, folder / GRAPH_FILE):
        if path in there:
            resolve_inside(folder, path.relative_to(folder).as_posix())
            return path
    names = [path.relative_to(folder).as_posix() for path in there]
    if len(names) > 1:
        raise ValueError(f"{folder} has the graphs {names}; say which: model_kwargs={{'file_name': {names[0]!r}}}")
    return resolve_inside(folder, names[0]) if names else None


def _named(folder: Path, place: Path, route: str | None, options: BackendOptions, there: list[Path]) -> Path:
    """Return the file that a caller names: by its path in the folder, or in the folder of graphs; or by its name alone.

    A route has its own beside those of others, so ``onnx/model.onnx`` is also the name of ``onnx/<route>/model.onnx``.
    """
    name = options.file_name or GRAPH_FILE
    inside = place.relative_to(folder).as_posix()
    given = resolve_inside(folder, name)  # whatever it is, it must not lead out
    candidates = [given] if route is None else []
    if Path(name).parent.as_posix() in (".", Path(options.subfolder).as_posix(), inside):
        candidates.append(resolve_inside(folder, f"{inside}/{Path(name).name}"))
    for path in candidates:
        if path.is_file():
            return path
    names = [path.relative_to(folder).as_posix() for path in there]
    raise FileNotFoundError(f"{folder} has no graph {name!r}; there are {names}")


def _export(folder: Path, target: Path) -> None:
    """Write the graphs of a model into another folder; imports torch."""
    logger.warning(
        "%s has no ONNX graph: it is exported for this process only, which takes a while and needs torch; "
        "SparseEncoder(folder).export_onnx(folder) writes it once and for all",
        folder,
    )
    from sparse_encoder.export import export_onnx
    from sparse_encoder.model import SparseEncoder

    export_onnx(SparseEncoder(str(folder), device="cpu", local_files_only=True), target)
