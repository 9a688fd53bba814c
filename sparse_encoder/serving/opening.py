"""From a folder to graphs that run: which file of a folder is taken, and what is exported where there is none."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from sparse_encoder.checkpoint import resolve_inside
from sparse_encoder.checkpoint.graph_names import GRAPH_FILE, GRAPH_FOLDER, SUFFIX
from sparse_encoder.serving.folder import ModelFolder, Route
from sparse_encoder.serving.options import BackendOptions, choose_providers, device_number
from sparse_encoder.serving.session import GraphSession, onnxruntime

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedGraphs:
    """Graphs that run."""

    sessions: Mapping[str | None, GraphSession]
    """By the names of their routes."""
    root: Path
    """The folder with the graphs in their places: the model's, or a temporary one, which is the caller's to remove."""
    is_made: bool = False
    """Whether they were exported for this."""
    device_number: int | None = None
    """The number of the GPU that was asked for; ``None`` if none was."""


def open_graphs(
    folder: Path, plan: ModelFolder, options: BackendOptions, device: object, root: Path | None = None
) -> OpenedGraphs:
    """Open the graph of each route that needs one.

    Args:
        folder: The model's folder.
        plan: Its routes.
        options: Which graphs, run by what.
        device: What the caller asks for, ``None`` for whatever there is.
        root: Where the graphs of this model lie that were exported before; ``None`` if they were not.

    Raises:
        FileNotFoundError: If a graph is not there and may not be exported, or another than the one that was named is.
        CheckpointError: If a graph is damaged or none of a sparse encoder.
        ImportError: If onnxruntime, or for an export torch, is missing.
        ValueError: If there are several graphs and none is the first choice.
    """
    providers = choose_providers(onnxruntime(), options, device)
    number = device_number(providers)
    routes = [route for route in plan.routes.values() if route.weights is None]
    if root is not None:
        sessions = _open(_made(root, routes, options), routes, options, providers)
        return OpenedGraphs(sessions=sessions, root=root, device_number=number)
    if options.export is not True:
        found = {route.name: find_graph(folder, route.name, options) for route in routes}
        missing = [str(name) for name, path in found.items() if path is None]
        if not missing:
            paths = {name: path for name, path in found.items() if path is not None}
            sessions = _open(paths, routes, options, providers)
            return OpenedGraphs(sessions=sessions, root=folder, device_number=number)
        if options.export is False:
            raise FileNotFoundError(
                f"{folder} has no ONNX graph, and model_kwargs={{'export': False}} forbids to make one; "
                "SparseEncoder(folder).export_onnx(folder) writes it"
            )
    made = Path(mkdtemp(prefix="sparse-encoder-"))
    try:
        paths = _made(made, routes, options)
        _export(folder, made, paths)
        sessions = _open(paths, routes, options, providers)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return OpenedGraphs(sessions=sessions, root=made, is_made=True, device_number=number)


def _made(root: Path, routes: list[Route], options: BackendOptions) -> dict[str | None, Path]:
    """Return where the graphs of an export are."""
    name = GRAPH_FILE if options.file_name is None else Path(options.file_name).name
    return {route.name: _graph_folder(root, route.name, GRAPH_FOLDER) / name for route in routes}


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
        The file; ``None`` if there is no graph at all, and one may be made.

    Raises:
        FileNotFoundError: If the one that was named is not there and others are, or none may be made; lists those that
            are.
        ValueError: If there are several and none has the usual name, or the name leads out of the folder.
    """
    place = _graph_folder(folder, route, options.subfolder)
    there = sorted({*place.glob(f"*{SUFFIX}"), *(folder.glob(f"*{SUFFIX}") if route is None else ())})
    if options.file_name is not None:
        resolve_inside(folder, options.file_name)  # whatever it is, it must not lead out
        return _named(folder, place, route, options, there) if there or options.export is False else None
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
    candidates = [resolve_inside(folder, name)] if route is None else []
    if Path(name).parent.as_posix() in (".", Path(options.subfolder).as_posix(), inside):
        candidates.append(resolve_inside(folder, f"{inside}/{Path(name).name}"))
    for path in candidates:
        if path.is_file():
            return path
    names = [path.relative_to(folder).as_posix() for path in there]
    raise FileNotFoundError(f"{folder} has no graph {name!r}; there are {names}")


def _export(folder: Path, made: Path, paths: Mapping[str | None, Path]) -> None:
    """Write the graphs of a model into another folder; imports torch.

    Args:
        folder: The model.
        made: The other folder.
        paths: What the graph of each route is to be called there.
    """
    logger.warning(
        "the graph of %s is exported for this process only, which takes a while and needs torch; "
        "model.save_pretrained(%r) or model.push_to_hub(...) keeps it",
        folder,
        str(folder),
    )
    from sparse_encoder.export import export_onnx
    from sparse_encoder.model import SparseEncoder

    model = SparseEncoder(str(folder), device="cpu", local_files_only=True)
    if None in paths:
        paths[None].parent.mkdir()
        export_onnx(model, paths[None])
        return
    export_onnx(model, made)
    for path in paths.values():
        path.with_name(GRAPH_FILE).rename(path)
