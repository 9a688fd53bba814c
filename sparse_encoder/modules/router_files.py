"""``router_config.json``: which modules a router's routes have, where they are, and how routes are chosen."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from sparse_encoder.checkpoint import ConfigError, read_json_object, resolve_inside, write_json
from sparse_encoder.modules.base import InputModule, LoadSettings, Module

Modality = str | tuple[str, ...] | None
RouteKey = tuple[str | None, Modality]

ROUTER_FILE = "router_config.json"
OLD_ROUTER_FILE = "config.json"
MAX_MODULES = 64
MAX_KEY_CHARACTERS = 500
_ROUTE_NAME = re.compile(r"[A-Za-z0-9_ -]{1,100}")


def check_route_name(name: object) -> None:
    """Check that a route's name can be part of a folder's.

    Raises:
        ValueError: If it cannot.
    """
    if not isinstance(name, str) or not _ROUTE_NAME.fullmatch(name):
        raise ValueError(f"the name of a route must be letters, digits, blanks, '_' or '-', got {name!r:.120}")


def sorted_key(key: RouteKey) -> RouteKey:
    """Return a key of ``route_mappings`` with several modalities in one order.

    Raises:
        ValueError: If it is not a pair of task and modality.
    """
    if not isinstance(key, tuple) or len(key) != 2:
        raise ValueError(f"a key of route_mappings must be (task, modality), got {key!r:.120}")
    task, modality = key
    several = isinstance(modality, tuple) and all(isinstance(name, str) for name in modality)
    if not isinstance(task, (str, type(None))) or not (several or isinstance(modality, (str, type(None)))):
        raise ValueError(f"task and modality of a key of route_mappings must be names or None, got {key!r:.120}")
    return task, tuple(sorted(modality)) if isinstance(modality, tuple) else modality


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
    path = folder / ROUTER_FILE
    if not path.exists():
        path = folder / OLD_ROUTER_FILE
    values = read_json_object(resolve_inside(folder, path.name))
    types, structure = _object(values, "types", path), _object(values, "structure", path)
    _check_structure(types, structure, path)
    parameters = dict(_object(values, "parameters", path))
    parameters["route_mappings"] = _read_mappings(parameters.get("route_mappings") or {}, path)
    modules = {name: _load(name, kind, folder, settings, path) for name, kind in types.items()}
    return {route: [modules[name] for name in names] for route, names in structure.items()}, parameters


def _object(values: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    value = values.get(name)
    if not isinstance(value, dict):
        raise ConfigError(f"must be an object, got {value!r:.80}", path=path, field=name)
    return value


def _check_structure(types: Mapping[str, Any], structure: Mapping[str, Any], path: Path) -> None:
    """Check that routes are lists of the modules that have a type, and that each of those is used."""
    if not structure or len(types) > MAX_MODULES or len(structure) > MAX_MODULES:
        raise ConfigError(f"must have 1 to {MAX_MODULES} routes and modules", path=path, field="structure")
    used = set()
    for route, names in structure.items():
        if not isinstance(names, list) or not 0 < len(names) <= MAX_MODULES:
            raise ConfigError(f"route {route!r:.120} must be a list of modules", path=path, field="structure")
        for name in names:
            if not isinstance(name, str) or name not in types:
                raise ConfigError(f"route {route!r:.120} names {name!r:.120}, which has no type", path=path)
        used.update(names)
    if unused := sorted(set(types) - used):
        raise ConfigError(f"no route has {unused[:10]}", path=path, field="types")


def _load(name: str, kind: object, folder: Path, settings: LoadSettings, path: Path) -> Module:
    """Load one module of a router."""
    from sparse_encoder.modules.module_types import module_class

    found = module_class(kind, path=path)
    own = resolve_inside(folder, name)
    if own.is_dir() or not issubclass(found, InputModule):
        return found.load(own, replace(settings, shared_folder=False))
    return found.load(folder, replace(settings, shared_folder=True))


def _read_mappings(values: object, path: Path) -> dict[RouteKey, str]:
    """Read ``route_mappings``, whose keys are tuples written as Python literals."""
    if not isinstance(values, dict) or len(values) > MAX_MODULES:
        raise ConfigError(f"must be an object of at most {MAX_MODULES}", path=path, field="route_mappings")
    mappings: dict[RouteKey, str] = {}
    for text, route in values.items():
        try:
            if len(text) > MAX_KEY_CHARACTERS:
                raise ValueError(f"a key must have at most {MAX_KEY_CHARACTERS} characters")
            mappings[sorted_key(ast.literal_eval(text))] = route
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as reason:
            hint = "A key is a tuple of task and modality, for example \"('query', None)\""
            message = f"cannot read {text[:100]!r}: {reason}"
            raise ConfigError(message, path=path, field="route_mappings", hint=hint) from reason
    return mappings
