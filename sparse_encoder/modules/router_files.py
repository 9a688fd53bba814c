"""``router_config.json``: which modules a router's routes have, where they are, and how routes are chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from sparse_encoder.checkpoint import resolve_inside, write_json
from sparse_encoder.modules.base import InputModule, LoadSettings, Module
from sparse_encoder.routes import ROUTER_FILE, read_router_file


def write_routes(folder: Path, routes: Mapping[str, Sequence[nn.Module]], parameters: Mapping[str, Any]) -> None:
    """Write modules and ``router_config.json``.

    Args:
        folder: The router's folder.
        routes: The modules of each route; one that is in several places is written once.
        parameters: The router's configuration.

    Raises:
        TypeError: If a module is none of the library's.
    """
    from sparse_encoder.modules.module_types import folder_class_name, type_name

    names: dict[int, str] = {}
    types: dict[str, str] = {}
    structure: dict[str, list[str]] = {}
    for route, modules in routes.items():
        structure[route] = []
        for position, module in enumerate(modules):
            if id(module) not in names:
                name = f"{route}_{position}_{folder_class_name(module)}"
                types[name] = type_name(module)
                (folder / name).mkdir(parents=True)
                module.save(folder / name)  # type: ignore[operator]
                names[id(module)] = name
            structure[route].append(names[id(module)])
    mappings = {str(key): route for key, route in parameters["route_mappings"].items()}
    values = {"types": types, "structure": structure, "parameters": {**parameters, "route_mappings": mappings}}
    write_json(folder / ROUTER_FILE, values, indent=4)


def read_routes(folder: Path, settings: LoadSettings) -> tuple[dict[str, list[Module]], dict[str, Any]]:
    """Read ``router_config.json`` and load the modules that it names.

    Args:
        folder: The router's folder. A module that has no folder of its own in it is read from this folder, if it is
            an input module (a flat copy), or has no files.
        settings: What the caller adds.

    Returns:
        The modules of each route, and the router's configuration.

    Raises:
        LoadError: If a file is missing, or is not what it claims to be.
    """
    path, types, structure, parameters = read_router_file(folder)
    modules = {name: _load(name, kind, folder, settings, path) for name, kind in types.items()}
    return {route: [modules[name] for name in names] for route, names in structure.items()}, parameters


def _load(name: str, kind: object, folder: Path, settings: LoadSettings, path: Path) -> Module:
    """Load one module of a router."""
    from sparse_encoder.modules.module_types import module_class

    found = module_class(kind, path=path)
    own = resolve_inside(folder, name)
    if own.is_dir() or not issubclass(found, InputModule):
        return found.load(own, replace(settings, shared_folder=False))
    return found.load(folder, replace(settings, shared_folder=True))
